"""oci_auth.py - the ways to be somebody at OCI, for the tools beside it; all of them are the official SDK's.

    config              an API key of the SDK's configuration file (default)
    security_token      a session token of that file (`oci session authenticate`)
    resource_principal  what a notebook session or a job is
    instance_principal  what a compute instance is
"""
import sys

AUTHS = ("config", "security_token", "resource_principal", "instance_principal")


def load_sdk():
    try:
        import oci  # pylint: disable=import-outside-toplevel
    except ImportError:
        sys.exit("OCI's SDK for Python is missing: install the package 'oci' (a notebook session of OCI has it)")
    return oci


def add_options(parser):
    parser.add_argument("--auth", choices=AUTHS, default="config", help="who asks (config)")
    parser.add_argument("--config-file", default="~/.oci/config", help="the SDK's configuration (~/.oci/config)")
    parser.add_argument("--profile", default="DEFAULT", help="its profile (DEFAULT)")


def read_token(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def make_signer(options):
    """(config, signer) as the SDK's clients take them: their first argument, and `signer=`."""
    oci = load_sdk()
    if options.auth == "resource_principal":
        return {}, oci.auth.signers.get_resource_principals_signer()
    if options.auth == "instance_principal":
        return {}, oci.auth.signers.InstancePrincipalsSecurityTokenSigner()
    config = oci.config.from_file(options.config_file, options.profile)
    if options.auth == "security_token":
        key = oci.signer.load_private_key_from_file(config["key_file"])
        return config, oci.auth.signers.SecurityTokenSigner(read_token(config["security_token_file"]), key)
    return config, oci.signer.Signer(tenancy=config["tenancy"], user=config["user"],
                                     fingerprint=config["fingerprint"], private_key_file_location=config["key_file"],
                                     pass_phrase=config.get("pass_phrase"))
