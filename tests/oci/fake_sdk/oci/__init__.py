"""A stand-in of OCI's SDK for Python, as far as the tools of deploy/oci use it: the same names, the same parameters
(Oracle's SDK reference of data_science, config, signer and auth.signers), nothing else, so that a name it does not have
is an error.  Each call is a JSON line in $FAKE_OCI_LOG; $FAKE_OCI_SCENARIO says how the service behaves."""
import json
import os

SCENARIO = os.environ.get("FAKE_OCI_SCENARIO", "succeeds")


def note(call, **arguments):
    with open(os.environ["FAKE_OCI_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": call, **arguments}) + "\n")


class Response:
    def __init__(self, data, headers=None):
        self.data, self.headers = data, headers or {}


class Bag:
    def __init__(self, **values):
        self.__dict__.update(values)


class Model:
    """Takes its attributes by name, and no other; a missing one is None."""

    attributes = ()

    def __init__(self, **values):
        unknown = values.keys() - set(self.attributes)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {unknown}")
        for name in self.attributes:
            setattr(self, name, values.get(name))

    def plain(self):
        return {k: v.plain() if isinstance(v, Model) else v for k, v in self.__dict__.items()}


class exceptions:
    class ServiceError(Exception):
        def __init__(self, status, code, headers, message):
            super().__init__(message)
            self.status, self.code, self.headers, self.message = status, code, headers, message


class config:
    @staticmethod
    def from_file(file_location="~/.oci/config", profile_name="DEFAULT"):
        note("from_file", file_location=file_location, profile_name=profile_name)
        return {"tenancy": "T", "user": "U", "fingerprint": "F", "key_file": "K", "pass_phrase": None,
                "region": "us-ashburn-1", "security_token_file": file_location}


class FakeSigner:
    """Signs as `requests` asks an AuthBase to: by a call with the prepared request."""

    def __init__(self, who):
        self.who = who

    def __call__(self, request):
        request.headers["Authorization"] = f'Signature version="1",keyId="{self.who}",bytes={len(request.body or b"")}'
        return request


class signer:
    @staticmethod
    def load_private_key_from_file(filename, pass_phrase=None):
        return f"key of {filename}"

    class Signer(FakeSigner):
        def __init__(self, tenancy, user, fingerprint, private_key_file_location, pass_phrase=None,
                     private_key_content=None):
            super().__init__(f"{tenancy}/{user}/{fingerprint}")


class auth:
    class signers:
        @staticmethod
        def get_resource_principals_signer():
            return FakeSigner("resource")

        class InstancePrincipalsSecurityTokenSigner(FakeSigner):
            def __init__(self):
                super().__init__("instance")

        class SecurityTokenSigner(FakeSigner):
            def __init__(self, token, private_key):
                super().__init__(f"ST${token} {private_key}")


class data_science:
    class models:
        class CreateModelDetails(Model):
            attributes = ("compartment_id", "project_id", "display_name", "description", "freeform_tags",
                          "defined_tags", "custom_metadata_list", "defined_metadata_list")

        class ExportModelArtifactDetails(Model):
            attributes = ("artifact_export_details",)

        class ArtifactExportDetailsObjectStorage(Model):
            attributes = ("artifact_source_type", "namespace", "source_bucket", "source_object_name", "source_region")

    class DataScienceClient:
        def __init__(self, config, signer=None):  # pylint: disable=redefined-outer-name
            note("client", config=config, who=signer.who)
            self.looks = 0

        def create_model(self, create_model_details, **kwargs):
            note("create_model", **create_model_details.plain())
            if SCENARIO == "refused":
                raise exceptions.ServiceError(404, "NotAuthorizedOrNotFound", {}, "Authorization failed")
            return Response(Bag(id="ocid1.datasciencemodel.oc1.iad.new"))

        def export_model_artifact(self, model_id, export_model_artifact_details, **kwargs):
            note("export_model_artifact", model_id=model_id, **export_model_artifact_details.plain())
            return Response(None, {"opc-work-request-id": "ocid1.datascienceworkrequest.oc1.iad.w"})

        def get_work_request(self, work_request_id, **kwargs):
            note("get_work_request", work_request_id=work_request_id)
            self.looks += 1
            steps = [(None, "ACCEPTED"), (12.5, "IN_PROGRESS"), (60.0, "IN_PROGRESS")]
            end = {"succeeds": (100.0, "SUCCEEDED"), "fails": (60.0, "FAILED")}.get(SCENARIO, steps[-1])
            percent, status = (steps + [end])[min(self.looks, 4) - 1]
            return Response(Bag(percent_complete=percent, status=status))

        def list_work_request_errors(self, work_request_id, **kwargs):
            note("list_work_request_errors", work_request_id=work_request_id)
            return Response([Bag(code="NotFound", message="no object model.zip")])
