"""A telephone network to practise on: wire-compatible stand-ins for Twilio and ElevenLabs, and simulated patients."""
