/* graph.c - captures and graphs.  A capture is a list of work in the order of the calls, whatever streams it came by;
 * that order keeps every dependency.  Arguments and addresses are baked in, as the driver does it. */
#include "tests/cuda/fake/fake.h"

struct cu_graph {
    struct work_list *list;
};

struct cu_graph_exec {
    struct work_list *list;
};

/* ---- Captures ---- */

int cuStreamBeginCapture_v2(struct cu_stream *s, int mode)
{
    static uint64_t n_captures;
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!s || mode < CU_CAPTURE_GLOBAL || mode > CU_CAPTURE_RELAXED)
        return CU_INVALID_VALUE; /* the default stream cannot capture */
    fake_lock();
    if (s->capture) {
        r = CU_ILLEGAL_STATE;
    } else {
        s->capture = work_list_new();
        s->capture->serial = ++n_captures;
        s->capture_origin = s;
        s->capture_is_broken = false;
        s->capture_mode = mode;
        s->capture_thread = pthread_self();
    }
    fake_unlock();
    return r;
}

/* Streams that joined stop capturing; were there any?  The mutex is held. */
static void leave_capture(struct cu_context *c, const struct work_list *list)
{
    for (struct cu_stream *s = c->streams; s; s = s->next)
        if (s->capture == list)
            s->capture = NULL;
}

int cuStreamEndCapture(struct cu_stream *s, struct cu_graph **graph)
{
    int r = fake_enter(__func__, true);
    struct work_list *list;

    if (r != CU_OK)
        return r;
    if (!s || !graph || !s->capture || s->capture_origin != s)
        return CU_STREAM_CAPTURE_UNMATCHED;
    fake_lock();
    list = s->capture;
    leave_capture(s->context, list);
    r = s->capture_is_broken ? CU_STREAM_CAPTURE_INVALIDATED : CU_OK;
    fake_unlock();
    *graph = NULL;
    if (r != CU_OK) {
        work_list_drop(list);
        return r;
    }
    *graph = fake_new(sizeof **graph);
    (*graph)->list = list;
    fake_lock();
    fake_counts.graphs++;
    fake_unlock();
    return CU_OK;
}

int cuStreamIsCapturing(struct cu_stream *s, int *status)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    s = fake_stream(s);
    *status = !s->capture                            ? CU_CAPTURE_STATUS_NONE
              : s->capture_origin->capture_is_broken ? CU_CAPTURE_STATUS_INVALIDATED
                                                     : CU_CAPTURE_STATUS_ACTIVE;
    return CU_OK;
}

static _Thread_local int thread_mode = CU_CAPTURE_GLOBAL;

int cuThreadExchangeStreamCaptureMode(int *mode)
{
    int before = thread_mode;

    if (!mode || *mode < CU_CAPTURE_GLOBAL || *mode > CU_CAPTURE_RELAXED)
        return CU_INVALID_VALUE;
    thread_mode = *mode;
    *mode = before;
    return CU_OK;
}

/* Does the stream's capture forbid what the calling thread is about to do? */
static bool forbids(const struct cu_stream *s)
{
    const struct cu_stream *origin = s->capture_origin;

    return s->capture && origin->capture_mode != CU_CAPTURE_RELAXED &&
           (origin->capture_mode == CU_CAPTURE_GLOBAL ||
            pthread_equal(origin->capture_thread, pthread_self()));
}

int capture_refuses(struct cu_context *c)
{
    int r = CU_OK;

    if (thread_mode == CU_CAPTURE_RELAXED)
        return CU_OK;
    fake_lock();
    for (struct cu_stream *s = c->streams; s; s = s->next)
        if (forbids(s)) {
            s->capture_origin->capture_is_broken = true;
            r = CU_STREAM_CAPTURE_UNSUPPORTED;
        }
    fake_unlock();
    if (r != CU_OK)
        fake_say("a call that is not allowed while a stream captures");
    return r;
}

/* ---- Graphs ---- */

static void use_list(struct work_list *list)
{
    __atomic_add_fetch(&list->uses, 1, __ATOMIC_RELAXED);
}

int cuGraphInstantiateWithFlags(struct cu_graph_exec **exec, struct cu_graph *graph,
                                unsigned long long flags)
{
    int r = fake_enter(__func__, true);

    (void)flags;
    if (r != CU_OK)
        return r;
    if (!exec || !graph)
        return CU_INVALID_VALUE;
    *exec = fake_new(sizeof **exec);
    (*exec)->list = graph->list;
    use_list(graph->list);
    fake_lock();
    fake_counts.graph_execs++;
    fake_unlock();
    return CU_OK;
}

int cuGraphGetNodes(struct cu_graph *graph, struct cu_graph_node **nodes, size_t *n)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!graph || !n || nodes)
        return CU_INVALID_VALUE; /* only how many there are can be had */
    *n = graph->list->n;
    return CU_OK;
}

int cuGraphUpload(struct cu_graph_exec *exec, struct cu_stream *s)
{
    int r = fake_enter(__func__, true);

    (void)s;
    if (r != CU_OK)
        return r;
    return exec ? CU_OK : CU_INVALID_HANDLE;
}

int cuGraphLaunch(struct cu_graph_exec *exec, struct cu_stream *s)
{
    int r = fake_enter(__func__, true);
    struct work *w;

    if (r != CU_OK)
        return r;
    if (!exec)
        return CU_INVALID_HANDLE;
    s = fake_stream(s);
    if (s->capture)
        return CU_NOT_SUPPORTED; /* a graph within a graph */
    w = work_new(WORK_GRAPH, 0);
    w->graph = exec->list;
    use_list(exec->list);
    fake_lock();
    fake_counts.graph_launches++;
    fake_unlock();
    return stream_give(s, w);
}

int cuGraphExecUpdate_v2(struct cu_graph_exec *exec, struct cu_graph *graph, void *result)
{
    int r = fake_enter(__func__, true);

    (void)result;
    if (r != CU_OK)
        return r;
    if (!exec || !graph)
        return CU_INVALID_VALUE;
    work_list_drop(exec->list);
    exec->list = graph->list;
    use_list(graph->list);
    return CU_OK;
}

int cuGraphExecDestroy(struct cu_graph_exec *exec)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!exec)
        return CU_INVALID_VALUE;
    work_list_drop(exec->list);
    fake_delete(exec);
    fake_lock();
    fake_counts.graph_execs--;
    fake_unlock();
    return CU_OK;
}

int cuGraphDestroy(struct cu_graph *graph)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!graph)
        return CU_INVALID_VALUE;
    work_list_drop(graph->list);
    fake_delete(graph);
    fake_lock();
    fake_counts.graphs--;
    fake_unlock();
    return CU_OK;
}
