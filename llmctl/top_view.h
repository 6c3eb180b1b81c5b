/* top_view.h - what `llmctl top` shows, as text for a screen of any size; knows no terminal and no server. */
#ifndef LLMD_LLMCTL_TOP_VIEW_H
#define LLMD_LLMCTL_TOP_VIEW_H

#include "llmctl/metrics_text.h"
#include "llmctl/terminal.h"
#include "proto/llmd.pb-c.h"

enum { TOP_HISTORY = 240, TOP_WINDOW = 60 }; /* samples kept; of latencies */

enum top_order { TOP_BY_NAME, TOP_BY_AGE, TOP_BY_RESTARTS, TOP_BY_MEMORY, N_TOP_ORDERS };

struct top_sample {
    double tokens_per_s;
    uint64_t requests, at_ns;
    bool has_latencies;
    struct metrics_histogram first_token, between_tokens;
};

struct top_view {
    const Llmd__Status *status; /* borrowed; NULL: no server answers */
    char trouble[240];          /* why none does */
    struct top_sample samples[TOP_HISTORY];
    unsigned n; /* samples taken in all; sample i is at i % TOP_HISTORY */
    bool paused;
    enum top_order order;
    unsigned interval_ms;
};

/* Append a sample of view->status; page: of /metrics, or NULL. */
void top_view_sample(struct top_view *v, const char *page, uint64_t now_ns);

struct top_screen {
    unsigned columns, rows;
    bool colours, utf8;
};

/* At most screen->rows lines of screen->columns, the last one the keys; no newline behind it. */
void top_view_put(struct buf *out, const struct top_view *v, const struct top_screen *screen);

#endif
