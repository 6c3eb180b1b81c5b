/* bench_report.h - the figures of a load test, under the names that vLLM's `bench serve` gives them.
 *
 *   TTFT   to the first token, from when the request was due
 *   TPOT   time per output token after the first: (last - first) / (tokens - 1) of a request
 *   ITL    between two events with tokens
 *   E2EL   to the end of the answer, from when it was due
 *
 * Due is the moment the plan says, not the one at which the generator got round to it: a server that stalls
 * makes the requests behind it late too, and they count (Tene's coordinated omission).  Failed requests count
 * in no latency. */
#ifndef LLMD_LLMCTL_BENCH_REPORT_H
#define LLMD_LLMCTL_BENCH_REPORT_H

#include "llmctl/bench_request.h"

enum bench_measure { BENCH_TTFT, BENCH_TPOT, BENCH_ITL, BENCH_E2EL, N_BENCH_MEASURES };

struct bench_figures {
    uint64_t n; /* samples */
    double mean_ms, std_ms, p50_ms, p90_ms, p95_ms, p99_ms, max_ms;
};

struct bench_report {
    const char *api, *url, *model; /* borrowed */
    double rate;                   /* of arrivals; 0: as fast as `concurrency` lets */
    uint64_t concurrency;          /* most at once; 0: any number */
    bool interrupted;
    double duration_s;
    uint64_t completed, failed, failures[N_BENCH_FAILURES];
    uint64_t input_tokens, output_tokens;
    uint64_t late_ns_max; /* sent so much after it was due */
    struct bench_figures figures[N_BENCH_MEASURES];
};

/* Of n values, sorted or not, linear between neighbours; sorts them.  n may be 0. */
void bench_figures_of(struct bench_figures *f, double *ms, uint64_t n);

/* From n requests that have ended, sent between begin_ns and end_ns. */
void bench_report_fill(struct bench_report *b, struct bench_request *const *requests, uint64_t n,
                       uint64_t begin_ns, uint64_t end_ns);

void bench_report_put_table(struct buf *out, const struct bench_report *b, bool colours);
void bench_report_put_json(struct buf *out, const struct bench_report *b);
/* A row for each request. */
void bench_report_put_csv(struct buf *out, struct bench_request *const *requests, uint64_t n,
                          uint64_t begin_ns);

#endif
