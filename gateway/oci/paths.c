/* paths.c - read the paths of an OCI deployment. */
#include "gateway/oci/paths.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "common/log.h"
#include "gateway/net/http_route.h"

#define GET  HTTP_METHOD_BIT(HTTP_GET)
#define POST HTTP_METHOD_BIT(HTTP_POST)

static void add(struct oci_paths *paths, const char *variable, const char *path, uint32_t methods,
                enum oci_path_kind kind)
{
    struct oci_path *p = &paths->path[paths->n];

    if (path[0] != '/' || strpbrk(path, "?# ") || strlen(path) >= OCI_PATH_BYTES) {
        log_warning("%s=\"%s\" is no path, ignoring it", variable, path);
        return;
    }
    if (paths->n == OCI_PATHS_MAX) {
        log_warning("%s names more than %d paths, ignoring \"%s\"", variable, OCI_PATHS_MAX, path);
        return;
    }
    snprintf(p->path, sizeof p->path, "%s", path);
    p->methods = methods;
    p->kind = kind;
    paths->n++;
}

static bool names_method(const json_t *methods, const char *name)
{
    for (size_t i = 0; i < json_array_size(methods); i++) {
        const char *method = json_string_value(json_array_get(methods, i));
        if (method && strcasecmp(method, name) == 0)
            return true;
    }
    return false;
}

static void add_custom(struct oci_paths *paths, const json_t *endpoint)
{
    static const char variable[] = "MODEL_DEPLOY_CUSTOM_ENDPOINTS";
    const char *path = json_string_value(json_object_get(endpoint, "endpointURI"));
    const json_t *methods = json_object_get(endpoint, "httpMethods");

    if (!path) {
        log_warning("%s: an entry has no endpointURI, ignoring it", variable);
        return;
    }
    if (names_method(methods, "GET"))
        add(paths, variable, path, GET, OCI_PATH_HEALTH);
    if (names_method(methods, "POST") || !methods)
        add(paths, variable, path, POST, OCI_PATH_PREDICT);
}

static void read_custom(struct oci_paths *paths, const char *text)
{
    struct err e;
    json_t *list = json_parse(text, strlen(text), &e);

    if (!json_is_array(list))
        log_warning("MODEL_DEPLOY_CUSTOM_ENDPOINTS is no JSON list%s%s, ignoring it",
                    list ? "" : ": ", list ? "" : e.msg);
    for (size_t i = 0; i < json_array_size(list); i++)
        add_custom(paths, json_array_get(list, i));
    json_decref(list);
}

void oci_paths_read(struct oci_paths *paths, const struct config *config)
{
    paths->n = 0;
    if (config->predict_endpoint[0])
        add(paths, "MODEL_DEPLOY_PREDICT_ENDPOINT", config->predict_endpoint, POST,
            OCI_PATH_PREDICT);
    if (config->health_endpoint[0])
        add(paths, "MODEL_DEPLOY_HEALTH_ENDPOINT", config->health_endpoint, GET, OCI_PATH_HEALTH);
    if (config->custom_endpoints[0])
        read_custom(paths, config->custom_endpoints);
}
