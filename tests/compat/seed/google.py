"""What Google would answer to the seed's diagnosis, from what Terraform made: IAM's accounts and Cloud Run's policies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Google:
    """Accounts by e-mail and policies by service, of one project; `unanswered` are requests that it knows no answer to."""

    accounts: Mapping[str, Mapping[str, Any]]
    policies: dict[str, dict[str, Any]]
    url: str = ""
    unanswered: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any) -> Any:
        last = unquote(path).rpartition("/")[2]
        service, _, verb = last.partition(":")
        if method == "GET" and "/serviceAccounts/" in path and last in self.accounts:
            return self.accounts[last]
        if method == "GET" and verb == "getIamPolicy" and service in self.policies:
            return self.policies[service]
        if method == "POST" and verb == "setIamPolicy" and service in self.policies:
            self.policies[service] = body["policy"]
            return self.policies[service]
        self.unanswered.append(f"{method} {path}")
        return None


def google_of(state: Mapping[str, Any], environment: str) -> Google:
    """Of the project of one environment, from the values of a Terraform state by address.

    What the stand-in provider made up for Google's computed values becomes what Google would compute.
    """
    account = state[f'google_service_account.scheduler["{environment}"]']
    binding = state[f'google_cloud_run_v2_service_iam_member.pulse_invoker["{environment}"]']
    email = f"{account['account_id']}@{account['project']}.iam.gserviceaccount.com"
    members = [{account["member"]: f"serviceAccount:{email}"}[binding["member"]]]
    return Google(
        {email: {"email": email, "displayName": account["display_name"]}},
        {binding["name"]: {"bindings": [{"role": binding["role"], "members": members}]}},
    )


@contextmanager
def answering(google: Google) -> Iterator[Google]:
    """Serve it on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = google.answer(self.command, urlsplit(self.path).path, json.loads(body or "{}"))
            payload = json.dumps({"error": {"code": 404}} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        google.url = f"http://127.0.0.1:{server.server_port}/"
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield google
        finally:
            server.shutdown()
            serving.join()
