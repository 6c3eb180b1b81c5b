/* paths.h - the paths that an OCI deployment adds by its variables.
 *
 * MODEL_DEPLOY_PREDICT_ENDPOINT and MODEL_DEPLOY_HEALTH_ENDPOINT name one each, MODEL_DEPLOY_CUSTOM_ENDPOINTS
 * a list.  Whatever was typed there is served, so that no deployment fails for a path: those of ours as what
 * they are (routes.c looks there first), of the others a GET is a health check and the rest predicts. */
#ifndef LLMD_GATEWAY_OCI_PATHS_H
#define LLMD_GATEWAY_OCI_PATHS_H

#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum { OCI_PATHS_MAX = 32, OCI_PATH_BYTES = 256 };

enum oci_path_kind { OCI_PATH_HEALTH, OCI_PATH_PREDICT };

struct oci_path {
    char path[OCI_PATH_BYTES]; /* begins with '/' */
    uint32_t methods;          /* HTTP_METHOD_BIT()s */
    enum oci_path_kind kind;
};

struct oci_paths {
    struct oci_path path[OCI_PATHS_MAX];
    size_t n;
};

/* What cannot be a path is named in a warning and left out. */
void oci_paths_read(struct oci_paths *paths, const struct config *config);

#endif
