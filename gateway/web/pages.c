/* pages.c - serve the files of the web pages.
 *
 * A page is asked for again each time (no-cache, with an ETag: 304 while it is the same); what it refers to
 * is named by a hash of its bytes and kept by the browser for good. */
#include <string.h>

#include "gateway/pages.h"
#include "gateway/web/accept.h"
#include "gateway/web/web.h"

/* Scripts and styles from here alone, none inline; nothing is fetched from elsewhere, no form leaves, and nobody
 * may show the page in a frame.  Only the sanitizer makes markup of strings. */
static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src "
                             "'self' data:; connect-src 'self'; "
                             "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                             "require-trusted-types-for 'script'; "
                             "trusted-types dompurify";

static const char *content_type(const char *name)
{
    static const char *const types[][2] = {
        { ".html", "text/html; charset=utf-8" }, { ".js", "text/javascript; charset=utf-8" },
        { ".css", "text/css; charset=utf-8" },   { ".svg", "image/svg+xml" },
        { ".txt", "text/plain; charset=utf-8" },
    };
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

const struct embedded_file *web_find(const char *name)
{
    for (size_t i = 0; i < embedded_files_n; i++)
        if (strcmp(embedded_files[i].name, name) == 0)
            return &embedded_files[i];
    return NULL;
}

static bool is_asset(const char *name)
{
    return strncmp(name, "assets/", strlen("assets/")) == 0;
}

static void add_guards(struct reply *r)
{
    reply_header(r, "Content-Security-Policy", "%s", policy);
    reply_header(r, "Referrer-Policy", "no-referrer");
    reply_header(r, "Cross-Origin-Opener-Policy", "same-origin");
}

void web_answer(const struct embedded_file *file, const struct web_wish *wish, struct reply *r)
{
    bool is_known = accept_has_etag(wish->if_none_match, file->etag);
    bool is_packed = file->gzip && accept_names(wish->accept_encoding, "gzip");

    reply_set(r, is_known ? 304 : 200, is_known ? NULL : content_type(file->name));
    reply_header(r, "ETag", "%s", file->etag);
    reply_header(r, "Vary", is_asset(file->name) ? "Accept-Encoding" : "Accept, Accept-Encoding");
    reply_header(r, "Cache-Control",
                 is_asset(file->name) ? "public, max-age=31536000, immutable" : "no-cache");
    reply_header(r, "X-Content-Type-Options", "nosniff");
    if (!is_asset(file->name))
        add_guards(r);
    if (is_known)
        return;
    if (is_packed)
        reply_header(r, "Content-Encoding", "gzip");
    buf_add(&r->body, is_packed ? file->gzip : file->bytes, is_packed ? file->n_gzip : file->n);
}

/* ---- the routes ---- */

static void answer(const char *name, const struct http_request *http, struct reply *r)
{
    const struct embedded_file *file = web_find(name);
    struct web_wish wish = { 0 };

    if (!file) {
        reply_set(r, 404, REPLY_JSON);
        buf_add_str(&r->body, "{\"detail\":\"Not Found\"}");
        return;
    }
    if (http) {
        wish.accept_encoding = http_request_header(http, "Accept-Encoding");
        wish.if_none_match = http_request_header(http, "If-None-Match");
    }
    web_answer(file, &wish, r);
}

/* TGI answers probes here: whoever does not ask for a page gets that answer. */
void page_root(struct service *s, const struct http_request *http, struct reply *r)
{
    if (http && accept_names(http_request_header(http, "Accept"), "text/html")) {
        answer("index.html", http, r);
        return;
    }
    page_health(s, http, r);
    reply_header(r, "Vary", "Accept");
}

void page_status(struct service *s, const struct http_request *http, struct reply *r)
{
    (void)s;
    answer("status.html", http, r);
}

void page_docs(struct service *s, const struct http_request *http, struct reply *r)
{
    (void)s;
    answer("docs.html", http, r);
}

void page_asset(struct service *s, const struct http_request *http, struct reply *r)
{
    const char *name = strstr(http_request_path(http), WEB_ASSETS); /* below /predict, too */

    (void)s;
    answer(name ? name + strlen("/ui/") : "", http, r);
}
