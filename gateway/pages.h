/* pages.h - answers that need no worker: models, health, versions, numbers. */
#ifndef LLMD_GATEWAY_PAGES_H
#define LLMD_GATEWAY_PAGES_H

#include "gateway/reply.h"
#include "gateway/service.h"

struct http_request;

/* health.c */
void page_health(struct service *s, const struct http_request *http, struct reply *r);
void page_live(struct service *s, const struct http_request *http, struct reply *r);
void page_ready(struct service *s, const struct http_request *http, struct reply *r);
void page_version(struct service *s, const struct http_request *http, struct reply *r);
void page_load(struct service *s, const struct http_request *http, struct reply *r);
/* models.c */
void page_models(struct service *s, const struct http_request *http, struct reply *r);
#define PAGE_MODEL "/v1/models/" /* and a model's name */
void page_model(struct service *s, const struct http_request *http, struct reply *r);
/* openai/pages.c; they have a body */
void page_tokenize(struct service *s, const struct http_request *http, struct reply *r);
void page_detokenize(struct service *s, const struct http_request *http, struct reply *r);
/* openai/render.c; they have a body */
void page_render_chat(struct service *s, const struct http_request *http, struct reply *r);
void page_render_completions(struct service *s, const struct http_request *http, struct reply *r);
/* tgi/pages.c; the last two have a body */
void page_info(struct service *s, const struct http_request *http, struct reply *r);
void page_tgi_tokenize(struct service *s, const struct http_request *http, struct reply *r);
void page_tgi_chat_tokenize(struct service *s, const struct http_request *http, struct reply *r);
/* openapi.c */
void page_openapi(struct service *s, const struct http_request *http, struct reply *r);
/* web/pages.c; page_root() is a page for browsers and page_health() for everybody else */
void page_root(struct service *s, const struct http_request *http, struct reply *r);
void page_status(struct service *s, const struct http_request *http, struct reply *r);
void page_docs(struct service *s, const struct http_request *http, struct reply *r);
void page_asset(struct service *s, const struct http_request *http, struct reply *r);
/* web/status.c */
void page_status_json(struct service *s, const struct http_request *http, struct reply *r);
/* metrics.c */
void page_metrics(struct service *s, const struct http_request *http, struct reply *r);

#endif
