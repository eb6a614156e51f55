"""Certificates for the demo: an authority, and what it signs. Good for a day, and for this machine only."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=1)
# Clocks of one machine differ by nothing; what was made this second is valid all the same.
BEFORE = datetime.timedelta(minutes=5)


class Authority:
    """Signs; its certificate is `ca.crt` in the folder, and its key is in memory only."""

    def __init__(self, folder):
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clerk-authz demo")])
        self.certificate = self._signed(
            self.name, self.key, x509.BasicConstraints(ca=True, path_length=0),
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()))
        self.file = folder / "ca.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, file, dns, addresses=(), server=False):
        """Writes FILE.crt and FILE.key, for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns[0])]), key,
            x509.BasicConstraints(ca=False, path_length=None), x509.ExtendedKeyUsage([usage]),
            x509.SubjectAlternativeName(
                [x509.DNSName(name) for name in dns]
                + [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]))
        (self.folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = self.folder / f"{file}.key"
        secret.touch(mode=0o600)
        secret.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    def _signed(self, name, key, *extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - BEFORE).not_valid_after(now + LIFE)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False))
        for extension in extensions:
            critical = isinstance(extension, (x509.BasicConstraints, x509.KeyUsage))
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())
