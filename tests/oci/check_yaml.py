"""check_yaml.py KIT - are the ADS files what `ads opctl run -f` reads, and would the platform take their environment?"""
import importlib.machinery
import importlib.util
import sys

import yaml

KIT = sys.argv[1]
INFRASTRUCTURE = {"compartmentId", "projectId", "accessLog", "predictLog", "shapeName", "shapeConfigDetails", "replica",
                  "bandWidthMbps", "webConcurrency", "subnetId"}
RUNTIME = {"modelUri", "image", "serverPort", "healthCheckPort", "env", "region", "overwriteExistingArtifact",
           "removeExistingArtifact", "timeout", "deploymentMode"}
OCIDS = {"compartmentId": "ocid1.compartment.", "projectId": "ocid1.datascienceproject.", "subnetId": "ocid1.subnet."}
PORTS_TAKEN = {24224, 8446, 8447}

loader = importlib.machinery.SourceFileLoader("byoc", f"{KIT}/oci-byoc-check")
byoc = importlib.util.module_from_spec(importlib.util.spec_from_loader("byoc", loader))
loader.exec_module(byoc)


def check(kind):
    with open(f"{KIT}/ads-md-deploy-{kind}.yaml", encoding="utf-8") as file:
        document = yaml.safe_load(file)
    assert document["kind"] == "deployment"
    infrastructure, runtime = document["spec"]["infrastructure"], document["spec"]["runtime"]
    assert infrastructure["kind"] == "infrastructure" and infrastructure["type"] == "datascienceModelDeployment"
    assert runtime["kind"] == "runtime" and runtime["type"] == "container"
    assert set(infrastructure["spec"]) == INFRASTRUCTURE, set(infrastructure["spec"]) ^ INFRASTRUCTURE
    assert set(runtime["spec"]) == RUNTIME, set(runtime["spec"]) ^ RUNTIME
    for key, prefix in OCIDS.items():
        assert infrastructure["spec"][key].startswith(prefix), key
    for log in ("accessLog", "predictLog"):
        assert set(infrastructure["spec"][log]) == {"logGroupId", "logId"}, log
    for key in ("serverPort", "healthCheckPort"):
        port = runtime["spec"][key]
        assert 1024 <= port <= 65535 and port not in PORTS_TAKEN, port
    env = runtime["spec"]["env"]
    assert all(isinstance(value, str) for value in env.values()), f"values of env must be strings: {env}"
    assert byoc.environment_problem(env) is None, byoc.environment_problem(env)
    assert env.get("MODEL_DEPLOY_PREDICT_ENDPOINT") == byoc.PREDICT_ENDPOINTS[kind], kind
    assert f"llmd-{kind}:" in runtime["spec"]["image"]


check("tgi")
check("vllm")
