/* http.c - transfers with libcurl's multi interface, which can wait for Ctrl-C as well.
 *
 * Proxies are off: the server is on this machine, whatever http_proxy says. */
#include "llmctl/http.h"

#include <curl/curl.h>
#include <stdlib.h>

#include "common/mem.h"

enum { CONNECT_TIMEOUT_S = 5, POLL_MS = 1000, REFUSAL_BYTES_MAX = 64 << 10 };

struct transfer {
    const struct http_post *post;
    CURL *easy;
    struct buf *refusal;
    bool is_over; /* the taker wants no more */

    /* of a pool */
    struct transfer *next, **before;
    struct curl_slist *headers;
    struct buf own_refusal;
    http_end_fn *on_end;
    char error[CURL_ERROR_SIZE];
};

static size_t on_write(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long status = 0;

    n *= size;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (t->refusal->n + n <= REFUSAL_BYTES_MAX)
            buf_add(t->refusal, bytes, n);
        return n;
    }
    if (t->is_over || t->post->on_body(t->post->arg, bytes, n))
        return n;
    t->is_over = true;
    return n + 1; /* not what came: curl ends the transfer */
}

/* NULL: out of memory. */
static struct curl_slist *make_headers(const struct http_post *p)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct buf line = { 0 };
    bool ok = headers && curl_slist_append(headers, "Expect:");

    if (ok && p->api_key) {
        buf_printf(&line, "Authorization: Bearer %s", p->api_key);
        ok = curl_slist_append(headers, line.data);
    }
    buf_fini(&line);
    if (ok)
        return headers;
    curl_slist_free_all(headers);
    return NULL;
}

static bool set_body(struct transfer *t)
{
    CURL *c = t->easy;

    return !t->post->body ||
           (curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->post->n) == CURLE_OK &&
            curl_easy_setopt(c, CURLOPT_POSTFIELDS, t->post->body) == CURLE_OK);
}

static bool set_up(struct transfer *t, struct curl_slist *headers, char error[CURL_ERROR_SIZE])
{
    CURL *c = t->easy;

    return curl_easy_setopt(c, CURLOPT_URL, t->post->url) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_NOPROXY, "*") == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)t->post->timeout_s) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers) == CURLE_OK && set_body(t) &&
           curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_write) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_WRITEDATA, t) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error) == CURLE_OK;
}

/* Run until the transfer ends or stop_fd wakes.  False: it was stopped. */
static bool perform(CURLM *multi, int stop_fd, CURLcode *code)
{
    struct curl_waitfd stop = { .fd = stop_fd, .events = CURL_WAIT_POLLIN };
    int n_running = 1, n_left;
    CURLMsg *m;

    for (;;) {
        if (curl_multi_perform(multi, &n_running) != CURLM_OK) {
            *code = CURLE_FAILED_INIT;
            return true;
        }
        if ((m = curl_multi_info_read(multi, &n_left)) && m->msg == CURLMSG_DONE) {
            *code = m->data.result;
            return true;
        }
        stop.revents = 0;
        curl_multi_poll(multi, &stop, stop_fd >= 0, POLL_MS, NULL);
        if (stop.revents)
            return false;
    }
}

static enum http_result judge(struct transfer *t, CURLcode code, const char *error, long *status,
                              struct err *e)
{
    if (t->is_over)
        return HTTP_STOPPED;
    if (code != CURLE_OK) {
        err_set(e, ERR_PROTO, 0, "%s %s: %s", t->post->body ? "POST" : "GET", t->post->url,
                error[0] ? error : curl_easy_strerror(code));
        return HTTP_FAILED;
    }
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, status);
    return *status == 200 ? HTTP_OK : HTTP_REFUSED;
}

enum http_result http_post(const struct http_post *p, struct buf *refusal, long *status,
                           struct err *e)
{
    struct transfer t = { .post = p, .easy = curl_easy_init(), .refusal = refusal };
    struct curl_slist *headers = make_headers(p);
    enum http_result result = HTTP_FAILED;
    CURLM *multi = curl_multi_init();
    char error[CURL_ERROR_SIZE] = "";
    CURLcode code = CURLE_OK;

    if (!t.easy || !multi || !headers || !set_up(&t, headers, error) ||
        curl_multi_add_handle(multi, t.easy) != CURLM_OK)
        err_set(e, ERR_PROTO, 0, "libcurl cannot start a transfer: %s", error);
    else if (!perform(multi, p->stop_fd, &code))
        result = HTTP_STOPPED;
    else
        result = judge(&t, code, error, status, e);
    if (t.easy && multi)
        curl_multi_remove_handle(multi, t.easy);
    curl_easy_cleanup(t.easy);
    curl_multi_cleanup(multi);
    curl_slist_free_all(headers);
    return result;
}

/* ---- many at once ---- */

enum { IDLE_CONNECTIONS_MAX = 4096 };

struct http_pool {
    CURLM *multi;
    struct transfer *transfers;
};

struct http_pool *http_pool_new(struct err *e)
{
    struct http_pool *pool = mem_zalloc(1, sizeof *pool);

    pool->multi = curl_multi_init();
    if (pool->multi && curl_multi_setopt(pool->multi, CURLMOPT_MAXCONNECTS,
                                         (long)IDLE_CONNECTIONS_MAX) == CURLM_OK)
        return pool;
    err_set(e, ERR_PROTO, 0, "libcurl cannot start");
    http_pool_free(pool);
    return NULL;
}

static void transfer_free(struct transfer *t, CURLM *multi)
{
    if (t->before) {
        *t->before = t->next;
        if (t->next)
            t->next->before = t->before;
        curl_multi_remove_handle(multi, t->easy);
    }
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    buf_fini(&t->own_refusal);
    free(t);
}

void http_pool_free(struct http_pool *pool)
{
    if (!pool)
        return;
    while (pool->transfers)
        transfer_free(pool->transfers, pool->multi);
    curl_multi_cleanup(pool->multi);
    free(pool);
}

static void link_transfer(struct http_pool *pool, struct transfer *t)
{
    t->next = pool->transfers;
    t->before = &pool->transfers;
    if (t->next)
        t->next->before = &t->next;
    pool->transfers = t;
}

bool http_pool_start(struct http_pool *pool, const struct http_post *p, http_end_fn *on_end,
                     struct err *e)
{
    struct transfer *t = mem_zalloc(1, sizeof *t);

    t->post = p;
    t->on_end = on_end;
    t->refusal = &t->own_refusal;
    t->easy = curl_easy_init();
    t->headers = make_headers(p);
    if (t->easy && t->headers && set_up(t, t->headers, t->error) &&
        curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) == CURLE_OK &&
        curl_multi_add_handle(pool->multi, t->easy) == CURLM_OK) {
        link_transfer(pool, t);
        return true;
    }
    err_set(e, ERR_PROTO, 0, "libcurl cannot start a transfer: %s", t->error);
    transfer_free(t, pool->multi);
    return false;
}

static void finish(struct http_pool *pool, struct transfer *t, CURLcode code)
{
    struct http_end end = { .timed_out = code == CURLE_OPERATION_TIMEDOUT,
                            .refusal = &t->own_refusal };

    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &end.status);
    end.result = judge(t, code, t->error, &end.status, &end.e);
    t->on_end(t->post->arg, &end);
    transfer_free(t, pool->multi);
}

bool http_pool_turn(struct http_pool *pool, int wait_ms, int stop_fd)
{
    struct curl_waitfd stop = { .fd = stop_fd, .events = CURL_WAIT_POLLIN };
    int n_running, n_left;
    CURLMsg *m;

    curl_multi_perform(pool->multi, &n_running);
    while ((m = curl_multi_info_read(pool->multi, &n_left))) {
        struct transfer *t = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        finish(pool, t, code);
        wait_ms = 0; /* the caller may have more to start */
    }
    curl_multi_poll(pool->multi, &stop, stop_fd >= 0, wait_ms, NULL);
    return !stop.revents;
}
