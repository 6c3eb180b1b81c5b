/* nccl_comm.c - a state and the calls that move it; nothing here waits for a peer that works elsewhere. */
#include "gpu-worker/cuda/nccl_comm.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"

#define LAUNCH_NAP_NS 20000l

static atomic_uint n_left;

void nccl_comm_environment(bool by_host)
{
    /* NCCL user guide, "Environment Variables". */
    static const char *const settings[][2] = { { "NCCL_SOCKET_IFNAME", "lo" },
                                               { "NCCL_IB_DISABLE", "1" },
                                               { "NCCL_RAS_ENABLE", "0" } };

    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        setenv(settings[i][0], settings[i][1], 0);
    if (by_host)
        setenv("NCCL_P2P_DISABLE", "1", 1); /* the setting is the operator's word */
}

static bool result_is_ok(int result, const char *call, struct err *e)
{
    if (result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS)
        return true;
    return err_set(e, ERR_DEVICE, result, "%s: %s", call, nccl_result_name(result));
}

bool nccl_comm_id(struct nccl_unique_id *id, struct err *e)
{
    return nccl_open(e) && result_is_ok(nccl.ncclGetUniqueId(id), "ncclGetUniqueId", e);
}

bool nccl_comm_start(struct nccl_comm *c, const struct nccl_unique_id *id, uint32_t rank,
                     uint32_t n_ranks, struct err *e)
{
    struct nccl_config config = {
        .bytes = sizeof config,
        .magic = NCCL_CONFIG_MAGIC,
        .version = NCCL_CONFIG_VERSION,
        .blocking = 0,
        .cga_cluster_size = NCCL_UNDEF_INT,
        .min_ctas = NCCL_UNDEF_INT,
        .max_ctas = NCCL_UNDEF_INT,
        .split_share = NCCL_UNDEF_INT,
        .traffic_class = NCCL_UNDEF_INT,
    };

    *c = (struct nccl_comm){ .state = NCCL_COMM_FAILED };
    if (!nccl_open(e) ||
        !result_is_ok(nccl.ncclCommInitRankConfig(&c->comm, (int)n_ranks, *id, (int)rank, &config),
                      "ncclCommInitRankConfig", e))
        return false;
    c->state = NCCL_COMM_FORMING;
    c->deadline_ns = clock_mono_ns() + NCCL_COMM_LIMIT_NS;
    return true;
}

enum nccl_comm_state nccl_comm_poll(struct nccl_comm *c, struct err *e)
{
    int result = NCCL_SUCCESS;

    if (c->state == NCCL_COMM_FAILED)
        return c->state;
    if (!result_is_ok(nccl.ncclCommGetAsyncError(c->comm, &result), "ncclCommGetAsyncError", e) ||
        !result_is_ok(result, "NCCL communicator", e)) {
        c->state = NCCL_COMM_FAILED;
    } else if (c->state == NCCL_COMM_FORMING && result == NCCL_SUCCESS) {
        c->state = NCCL_COMM_READY;
    } else if (c->state == NCCL_COMM_FORMING && clock_mono_ns() > c->deadline_ns) {
        err_set(e, ERR_TIMEOUT, 0, "NCCL communicator did not form within %llu s",
                (unsigned long long)(NCCL_COMM_LIMIT_NS / NS_PER_S));
        c->state = NCCL_COMM_FAILED;
    }
    return c->state;
}

/* A communicator that does not block launches on a thread of its own.  Until it has, what is put into the stream comes
 * before it, and another call is refused (NCCL user guide, "Nonblocking Group Operation").  The first call also
 * connects to the peers, which come to it as well. */
static int wait_for_launch(struct nccl_comm *c, int result)
{
    uint64_t deadline_ns = clock_mono_ns() + NCCL_COMM_LIMIT_NS;

    while (result == NCCL_IN_PROGRESS && clock_mono_ns() < deadline_ns) {
        int asked = nccl.ncclCommGetAsyncError(c->comm, &result);
        if (asked != NCCL_SUCCESS)
            return asked;
        if (result == NCCL_IN_PROGRESS)
            nanosleep(&(struct timespec){ .tv_nsec = LAUNCH_NAP_NS }, NULL);
    }
    return result;
}

bool nccl_comm_all_reduce(struct nccl_comm *c, struct device_stream *s, float *out, const float *in,
                          size_t n)
{
    int result;

    assert(c->state == NCCL_COMM_READY);
    if (device_fault(s->device))
        return false;
    result = nccl.ncclAllReduce(in, out, n, NCCL_FLOAT32, NCCL_SUM, c->comm, s->stream);
    result = wait_for_launch(c, result);
    if (result == NCCL_SUCCESS)
        return true;
    c->state = NCCL_COMM_FAILED;
    return device_check(s->device, CU_LAUNCH_FAILED, "ncclAllReduce", nccl_result_name(result));
}

bool nccl_comm_close(struct nccl_comm *c, bool together)
{
    if (!c->comm)
        return true;
    if (!together || c->state != NCCL_COMM_READY) {
        atomic_fetch_add(&n_left, 1);
        return false;
    }
    /* ncclCommFinalize() waits for the peers, on other threads; ncclCommDestroy() alone frees what is ours. */
    nccl.ncclCommDestroy(c->comm);
    *c = (struct nccl_comm){ .state = NCCL_COMM_FAILED };
    return true;
}

bool nccl_comm_is_left(void)
{
    return atomic_load(&n_left) > 0;
}
