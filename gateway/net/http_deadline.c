/* http_deadline.c - when a connection has taken too long.
 *
 * All deadlines of one kind are equally long, so a list in order of setting is in order of time: setting
 * and clearing cost a few pointers, however many connections there are, and one timer looks at the heads
 * of five lists.  (libevent's own timers are a heap: a request would sift it four times.)
 *
 * A timer that comes much too late tells that this thread stood still: the machine was suspended, or the process
 * stopped.  Who could not be heard meanwhile is not late, and has his time again. */
#include "common/clock.h"
#include "gateway/net/http_conn.h"

/* A turn of a busy loop takes some milliseconds. */
#define STOOD_STILL_NS (NS_PER_S / 2)

uint64_t conn_progress(const struct http_conn *c)
{
    return c->phase == CONN_BODY ? c->in_seen : c->out_queued - conn_waiting(c);
}

static void arm(struct http_server *s, uint64_t at_ns, uint64_t now_ns)
{
    s->tick_at_ns = at_ns;
    loop_timer_set(s->tick, at_ns > now_ns ? at_ns - now_ns : 0);
}

void deadline_set(struct http_conn *c, enum deadline_kind kind)
{
    struct http_server *s = c->server;
    uint64_t now_ns;

    if (c->deadline != DL_NONE)
        TAILQ_REMOVE(&s->deadlines[c->deadline], c, in_deadline);
    c->deadline = DL_NONE;
    if (kind == DL_NONE || s->periods_ns[kind] == 0)
        return;
    now_ns = clock_mono_ns();
    c->deadline = (uint8_t)kind;
    c->deadline_ns = now_ns + s->periods_ns[kind];
    c->period_start = conn_progress(c);
    TAILQ_INSERT_TAIL(&s->deadlines[kind], c, in_deadline);
    if (c->deadline_ns < s->tick_at_ns)
        arm(s, c->deadline_ns, now_ns);
}

static void on_tick(void *arg)
{
    struct http_server *s = arg;
    uint64_t now_ns = clock_mono_ns(), next_ns = UINT64_MAX;
    bool stood_still = now_ns > s->tick_at_ns + STOOD_STILL_NS;
    struct http_conn *c;

    s->tick_at_ns = 0; /* whatever is set meanwhile need not arm the timer */
    for (int kind = 0; kind < N_DEADLINES; kind++) {
        while ((c = TAILQ_FIRST(&s->deadlines[kind])) && c->deadline_ns <= now_ns) {
            if (stood_still)
                deadline_set(c, (enum deadline_kind)kind);
            else
                conn_on_deadline(c);
        }
    }
    for (int kind = 0; kind < N_DEADLINES; kind++) {
        c = TAILQ_FIRST(&s->deadlines[kind]);
        if (c && c->deadline_ns < next_ns)
            next_ns = c->deadline_ns;
    }
    s->tick_at_ns = UINT64_MAX;
    if (next_ns != UINT64_MAX)
        arm(s, next_ns, now_ns);
}

void deadlines_init(struct http_server *s)
{
    const struct http_config *config = &s->config;
    const uint32_t periods_ms[N_DEADLINES] = {
        [DL_IDLE] = config->idle_ms,   [DL_HEAD] = config->head_ms,     [DL_BODY] = config->body_ms,
        [DL_WRITE] = config->write_ms, [DL_LINGER] = config->linger_ms,
    };

    for (int kind = 0; kind < N_DEADLINES; kind++) {
        TAILQ_INIT(&s->deadlines[kind]);
        s->periods_ns[kind] = periods_ms[kind] * NS_PER_MS;
    }
    s->tick_at_ns = UINT64_MAX;
    s->tick = loop_timer_new(s->loop, on_tick, s);
}

void deadlines_fini(struct http_server *s)
{
    loop_timer_free(s->tick);
}
