"""A mail server for tests: mail_server.py PORT FOLDER plain|starttls|tls [CHAIN KEY [USER PASSWORD]]

Every message is written to FOLDER/N.eml, its recipients in the first line. `nobody@…` is refused.
"""
import asyncio
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, folder, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3]
files, login = sys.argv[4:6], sys.argv[6:8]


class Keep:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        path = os.path.join(folder, f"{self.count}.eml")
        with open(path + ".new", "wb") as out:
            out.write((" ".join(envelope.rcpt_tos) + "\n").encode() + envelope.content)
        os.rename(path + ".new", path)
        return "250 kept"


def authenticate(server, session, envelope, mechanism, data):
    given = [data.login.decode(), data.password.decode()]
    return AuthResult(success=given == login, handled=False)


settings = {}
context = None
if files:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
if mode == "starttls":
    settings.update(tls_context=context, require_starttls=True)
if login:
    settings.update(auth_required=True, auth_require_tls=mode == "starttls", authenticator=authenticate)


async def serve():
    loop, keep = asyncio.get_running_loop(), Keep()
    server = await loop.create_server(
        lambda: SMTP(keep, loop=loop, **settings),
        host="127.0.0.1",
        port=port,
        ssl=context if mode == "tls" else None,
    )
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(serve())
