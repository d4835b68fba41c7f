"""The queue that carries calls and closings to Pulse: implementations of `careflow.ports.TaskQueue`."""
