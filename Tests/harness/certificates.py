"""certificates — authorities and what they sign, made by openssl."""

import os
import subprocess

def _openssl(*words):
    done = subprocess.run(["openssl", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr}")
    return done.stdout


class Authority:
    """A certificate authority in a folder of its own; `path` is what trusts it."""

    def __init__(self, folder, name="test authority"):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.path = os.path.join(folder, "ca.crt")
        self.key = os.path.join(folder, "ca.key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key,
                 "-out", self.path, "-days", "2", "-subj", f"/CN={name}",
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    @classmethod
    def at(cls, folder):
        """One that is there: ca.crt and ca.key in the folder."""
        authority = cls.__new__(cls)
        authority.folder = folder
        authority.path, authority.key = os.path.join(folder, "ca.crt"), os.path.join(folder, "ca.key")
        return authority

    def sign(self, folder, names, days=1):
        """Writes tls.crt and tls.key into the folder; `names` as openssl has them: "DNS:localhost,IP:127.0.0.1".
        Negative days: it is over."""
        os.makedirs(folder, exist_ok=True)
        request, key = os.path.join(folder, "request.pem"), os.path.join(folder, "new.key")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                 "-out", request, "-subj", "/CN=test", "-addext", f"subjectAltName={names}")
        new = os.path.join(folder, "new.crt")
        _openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self.key, "-CAcreateserial",
                 "-copy_extensions", "copy", "-days", str(days), "-out", new)
        os.replace(key, os.path.join(folder, "tls.key"))
        os.replace(new, os.path.join(folder, "tls.crt"))
        os.remove(request)


def show(path, *what):
    """What openssl tells of a certificate: show(path, "-noout", "-dates")."""
    return _openssl("x509", "-in", path, *what)
