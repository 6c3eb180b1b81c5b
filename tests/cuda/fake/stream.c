/* stream.c - streams as threads with queues; events; waiting.
 *
 * Modes.  Eager: the thread runs what it has.  Lazy: it runs a piece of work only once somebody waits for that
 * piece or a later one, or asks for it (n_wanted), so that work which nobody waited for has not happened.
 * Random: eager, with a pause before each piece.
 *
 * Streams that were destroyed stay as structures until the process ends, since events may name them. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/cuda/fake/fake.h"

static struct cu_stream *graveyard;

/* ---- The thread ---- */

static bool is_alive(const struct cu_context *c)
{
    return __atomic_load_n(&c->error, __ATOMIC_ACQUIRE) == CU_OK;
}

static bool may_run(const struct cu_stream *s)
{
    return s->first && (fake_settings()->mode != FAKE_LAZY || s->first->serial <= s->n_wanted ||
                        s->is_closing || !is_alive(s->context));
}

/* xorshift64 (Marsaglia 2003) */
static uint64_t draw(struct cu_stream *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

static void pause_a_while(struct cu_stream *s)
{
    uint64_t us = fake_settings()->mode == FAKE_RANDOM && fake_settings()->delay_us > 0
                      ? draw(s) % (fake_settings()->delay_us + 1)
                      : 0;

    if (us > 0)
        nanosleep(&(struct timespec){ (time_t)(us / 1000000), (long)(us % 1000000 * 1000) }, NULL);
}

static void finish_work(struct cu_stream *s, struct work *w)
{
    s->first = w->next;
    if (!s->first)
        s->end = &s->first;
    s->n_done = w->serial;
    if (w->kind == WORK_RECORD && --w->event->pending == 0 && w->event->is_doomed)
        fake_delete(w->event);
    work_free(w);
    pthread_cond_broadcast(&fake_changed);
}

static void *stream_main(void *arg)
{
    struct cu_stream *s = arg;

    work_thread_begin();
    fake_lock();
    for (;;) {
        while (!may_run(s) && !(s->is_closing && !s->first))
            pthread_cond_wait(&fake_changed, &fake_mutex);
        if (!s->first)
            break;
        if (is_alive(s->context)) {
            struct work *w = s->first;

            fake_unlock();
            pause_a_while(s);
            work_run(s, w);
            fake_lock();
        }
        finish_work(s, s->first);
    }
    fake_unlock();
    work_thread_end();
    return NULL;
}

/* ---- Life ---- */

/* The mutex is held. */
static struct cu_stream *stream_new(struct cu_context *c)
{
    static uint64_t n_made;
    struct cu_stream *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    s->context = c;
    s->end = &s->first;
    s->random = (fake_settings()->seed + ++n_made) * 0x9e3779b97f4a7c15ull | 1;
    if (pthread_create(&s->thread, NULL, stream_main, s) != 0)
        abort();
    s->next = c->streams;
    c->streams = s;
    return s;
}

static void unlink_stream(struct cu_stream *s)
{
    struct cu_stream **at = &s->context->streams;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->next = graveyard;
    graveyard = s;
}

/* Let it do what it has and end.  A parked thread, and what it owns, is left alone for ever. */
static void stream_close(struct cu_stream *s)
{
    unlink_stream(s);
    __atomic_store_n(&s->is_closing, true, __ATOMIC_RELEASE);
    s->n_wanted = UINT64_MAX;
    s->is_gone = true;
    pthread_cond_broadcast(&fake_changed);
    while (s->first && !s->is_parked && is_alive(s->context))
        pthread_cond_wait(&fake_changed, &fake_mutex);
    if (s->is_parked || s->first) {
        pthread_detach(s->thread);
        return;
    }
    fake_unlock();
    pthread_join(s->thread, NULL);
    fake_lock();
}

void context_close_streams(struct cu_context *c)
{
    while (c->streams)
        stream_close(c->streams);
    c->usual = NULL;
}

struct cu_stream *fake_stream(struct cu_stream *s)
{
    struct cu_context *c = fake_current();

    if (s || !c)
        return s;
    fake_lock();
    if (!c->usual)
        c->usual = stream_new(c);
    s = c->usual;
    fake_unlock();
    return s;
}

int cuStreamCreateWithPriority(struct cu_stream **s, unsigned flags, int priority)
{
    int r = fake_enter(__func__, true);

    (void)priority;
    if (r != CU_OK)
        return r;
    if (!s || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0)
        return CU_INVALID_VALUE;
    fake_lock();
    *s = stream_new(fake_current());
    fake_counts.streams++;
    fake_unlock();
    return CU_OK;
}

int cuStreamDestroy_v2(struct cu_stream *s)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!s || s->is_gone)
        return CU_INVALID_HANDLE;
    fake_lock();
    stream_close(s);
    fake_counts.streams--;
    fake_unlock();
    return CU_OK;
}

/* ---- Giving work and waiting ---- */

int stream_give(struct cu_stream *s, struct work *w)
{
    fake_lock();
    if (s->is_gone) {
        fake_unlock();
        work_free(w);
        return CU_INVALID_HANDLE;
    }
    if (s->capture) {
        work_list_add(s->capture, w);
        fake_counts.captured += w->kind == WORK_KERNEL;
        fake_unlock();
        return CU_OK;
    }
    w->serial = ++s->n_given;
    w->next = NULL;
    *s->end = w;
    s->end = &w->next;
    if (w->kind == WORK_RECORD) {
        w->event->stream = s;
        w->event->serial = w->serial;
        w->event->pending++;
    }
    fake_counts.launches += w->kind == WORK_KERNEL  ? 1
                            : w->kind == WORK_GRAPH ? w->graph->n_kernels
                                                    : 0;
    pthread_cond_broadcast(&fake_changed);
    fake_unlock();
    return CU_OK;
}

static void want(struct cu_stream *s, uint64_t serial)
{
    if (s->n_wanted >= serial)
        return;
    s->n_wanted = serial;
    pthread_cond_broadcast(&fake_changed);
}

int stream_wait(struct cu_stream *s, uint64_t serial)
{
    serial = serial == UINT64_MAX ? s->n_given : serial;
    want(s, serial);
    while (s->n_done < serial && is_alive(s->context))
        pthread_cond_wait(&fake_changed, &fake_mutex);
    return __atomic_load_n(&s->context->error, __ATOMIC_ACQUIRE);
}

int context_wait(struct cu_context *c)
{
    for (struct cu_stream *s = c->streams; s; s = s->next)
        if (stream_wait(s, UINT64_MAX) != CU_OK)
            break;
    return __atomic_load_n(&c->error, __ATOMIC_ACQUIRE);
}

static int capture_breaks(struct cu_stream *s)
{
    if (!s->capture)
        return CU_OK;
    s->capture_origin->capture_is_broken = true;
    fake_say("waiting for a stream that captures");
    return CU_STREAM_CAPTURE_UNSUPPORTED;
}

int cuStreamSynchronize(struct cu_stream *s)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    s = fake_stream(s);
    fake_lock();
    r = capture_breaks(s);
    if (r == CU_OK)
        r = stream_wait(s, UINT64_MAX);
    fake_unlock();
    return r;
}

int cuStreamQuery(struct cu_stream *s)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    s = fake_stream(s);
    fake_lock();
    r = capture_breaks(s);
    if (r == CU_OK) {
        want(s, s->n_given);
        r = s->n_done < s->n_given ? CU_NOT_READY : CU_OK;
    }
    fake_unlock();
    return r;
}

int cuCtxSynchronize(void)
{
    int r = fake_enter(__func__, true);

    if (r == CU_OK)
        r = capture_refuses(fake_current());
    if (r != CU_OK)
        return r;
    fake_lock();
    r = context_wait(fake_current());
    fake_unlock();
    return r;
}

int cuLaunchHostFunc(struct cu_stream *s, void (*function)(void *arg), void *arg)
{
    int r = fake_enter(__func__, true);
    struct work *w;

    if (r != CU_OK)
        return r;
    if (!function)
        return CU_INVALID_VALUE;
    w = work_new(WORK_CALL, 0);
    w->call.function = function;
    w->call.arg = arg;
    return stream_give(fake_stream(s), w);
}

static int give_word(const char *name, enum work_kind kind, struct cu_stream *s, cu_ptr address,
                     uint32_t value)
{
    int r = fake_enter(name, true);
    struct work *w;

    if (r != CU_OK)
        return r;
    if (address % sizeof value != 0 ||
        !fake_is_memory(FAKE_DEVICE, address, sizeof value, kind == WORK_WRITE_VALUE))
        return CU_INVALID_VALUE;
    w = work_new(kind, 0);
    w->word.address = address;
    w->word.value = value;
    return stream_give(fake_stream(s), w);
}

/* Flags 0 alone: wait until the word is at least the value, by their difference as a signed number. */
int cuStreamWriteValue32_v2(struct cu_stream *s, cu_ptr address, uint32_t value, unsigned flags)
{
    return flags ? CU_NOT_SUPPORTED : give_word(__func__, WORK_WRITE_VALUE, s, address, value);
}

int cuStreamWaitValue32_v2(struct cu_stream *s, cu_ptr address, uint32_t value, unsigned flags)
{
    return flags ? CU_NOT_SUPPORTED : give_word(__func__, WORK_WAIT_VALUE, s, address, value);
}

/* ---- Events ---- */

int cuEventCreate(struct cu_event **event, unsigned flags)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!event)
        return CU_INVALID_VALUE;
    *event = fake_new(sizeof **event);
    (*event)->flags = flags;
    fake_lock();
    fake_counts.events++;
    fake_unlock();
    return CU_OK;
}

int cuEventDestroy_v2(struct cu_event *event)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!event)
        return CU_INVALID_HANDLE;
    fake_lock();
    fake_counts.events--;
    event->is_doomed = true;
    if (event->pending == 0)
        fake_delete(event);
    fake_unlock();
    return CU_OK;
}

int cuEventRecord(struct cu_event *event, struct cu_stream *s)
{
    int r = fake_enter(__func__, true);
    struct work *w;

    if (r != CU_OK)
        return r;
    if (!event)
        return CU_INVALID_HANDLE;
    s = fake_stream(s);
    fake_lock();
    event->capture = s->capture ? s->capture->serial : 0;
    event->stream = s;
    fake_unlock();
    if (s->capture)
        return CU_OK; /* its place is the order of the list */
    w = work_new(WORK_RECORD, 0);
    w->event = event;
    return stream_give(s, w);
}

/* Was the event recorded in a capture that still goes on?  The mutex is held. */
static bool is_captured(const struct cu_event *event)
{
    return event->capture && event->stream->capture &&
           event->stream->capture->serial == event->capture;
}

/* The stream takes part in the event's capture from now on; the mutex is held. */
static int join_capture(struct cu_stream *s, const struct cu_event *event)
{
    if (!is_captured(event) || (s->capture && s->capture != event->stream->capture))
        return CU_STREAM_CAPTURE_UNSUPPORTED;
    s->capture = event->stream->capture;
    s->capture_origin = event->stream->capture_origin;
    return CU_OK;
}

int cuStreamWaitEvent(struct cu_stream *s, struct cu_event *event, unsigned flags)
{
    int r = fake_enter(__func__, true);
    struct work *w;

    (void)flags;
    if (r != CU_OK)
        return r;
    if (!event)
        return CU_INVALID_HANDLE;
    s = fake_stream(s);
    if (event->capture || s->capture) {
        fake_lock();
        r = event->capture ? join_capture(s, event) : CU_STREAM_CAPTURE_UNSUPPORTED;
        fake_unlock();
        return r;
    }
    if (!event->stream)
        return CU_OK;
    w = work_new(WORK_WAIT, 0);
    fake_lock();
    w->wait.stream = event->stream;
    w->wait.serial = event->serial;
    fake_unlock();
    return stream_give(s, w);
}

/* Asks for the event: in lazy mode, so that it will happen. */
static int event_ask(struct cu_event *event, bool waits)
{
    int r = CU_OK;

    fake_lock();
    if (event->capture) {
        if (is_captured(event))
            event->stream->capture_origin->capture_is_broken = true;
        fake_say("asking for an event of a capture");
        r = CU_CAPTURED_EVENT;
    } else if (event->stream && waits) {
        r = stream_wait(event->stream, event->serial);
    } else if (event->stream) {
        want(event->stream, event->serial);
        r = event->stream->n_done < event->serial ? CU_NOT_READY : CU_OK;
    }
    fake_unlock();
    return r;
}

int cuEventQuery(struct cu_event *event)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    return event ? event_ask(event, false) : CU_INVALID_HANDLE;
}

int cuEventSynchronize(struct cu_event *event)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    return event ? event_ask(event, true) : CU_INVALID_HANDLE;
}

int cuEventElapsedTime(float *ms, struct cu_event *from, struct cu_event *to)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!ms || !from || !to || ((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING))
        return CU_INVALID_HANDLE;
    fake_lock();
    if (!from->stream || !to->stream)
        r = CU_INVALID_HANDLE;
    else if (from->stream->n_done < from->serial || to->stream->n_done < to->serial)
        r = CU_NOT_READY;
    else
        *ms = (float)((double)(int64_t)(to->done_ns - from->done_ns) / 1e6);
    fake_unlock();
    return r;
}
