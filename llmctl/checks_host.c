/* checks_host.c - devices, limits, the model and the clock: one function a check, as in checks.c. */
#include <stdio.h>
#include <string.h>

#include "llmctl/checks.h"
#include "llmctl/terminal.h"

#define SHM_FOR_GPUS ((uint64_t)1 << 30) /* what NCCL wants of it */
#define YEAR_2024_S  1704067200u

/* ---- the model ---- */

static uint64_t model_number(const struct facts *f, const char *object, const char *key)
{
    const json_t *v = object ? json_object_get(f->model, object) : f->model;

    return (uint64_t)json_integer_value(json_object_get(v, key));
}

void check_model(const struct facts *f, struct check *c)
{
    const char *error = json_string_value(json_object_get(f->model, "error"));
    const json_t *tokenizer = json_object_get(f->model, "tokenizer");
    const char *trouble = json_string_value(json_object_get(tokenizer, "error"));

    c->name = "model";
    if (!f->model)
        check_find(c, "none is named (--model DIR)");
    else if (error || trouble) {
        check_find(c, "%s", error ? error : trouble);
        check_advise(c,
                     "fetch the files again; `llmctl model verify DIR` reads every byte of them");
        c->fails = true;
    } else
        check_find(c, "%s, %.4g million parameters; files are as long as their headers say",
                   json_string_value(json_object_get(f->model, "architecture")),
                   (double)model_number(f, NULL, "parameters") / 1e6);
}

/* Before it is started; of a server that runs, check_memory() knows more. */
void check_model_memory(const struct facts *f, struct check *c)
{
    uint64_t weights = model_number(f, "weights_bytes", "none");
    uint64_t kv = model_number(f, "kv_bytes_per_token", "float16") *
                  model_number(f, NULL, "max_position_embeddings");
    char need[32], one[32], have[32], int8[32], int4[32];

    c->name = "model_memory";
    if (weights == 0) {
        check_find(c, "no model to hold against memory");
        return;
    }
    terminal_bytes(need, sizeof need, weights);
    terminal_bytes(one, sizeof one, kv);
    terminal_bytes(have, sizeof have, f->memory_available);
    terminal_bytes(int8, sizeof int8, model_number(f, "weights_bytes", "int8"));
    terminal_bytes(int4, sizeof int4, model_number(f, "weights_bytes", "int4"));
    check_find(c, "%s of weights, %s of KV pages for one sequence of full length", need, one);
    if (f->status || f->memory_available == 0)
        return;
    if (weights > f->memory_available) {
        check_advise(c, "%s are available: --quantize int8 (%s) or int4 (%s), or more memory", have,
                     int8, int4);
        c->fails = true;
    } else if (weights + kv > f->memory_available)
        check_advise(c,
                     "%s are available: a lower max_model_len, --kv-cache-dtype int8 or --quantize",
                     have);
}

/* ---- memory and limits ---- */

void check_shm(const struct facts *f, struct check *c)
{
    char size[32];

    c->name = "shm";
    terminal_bytes(size, sizeof size, f->host.shm_bytes);
    if (!f->host.has_shm)
        check_find(c, "no /dev/shm; llmd needs none: its segments have no names");
    else
        check_find(c, "%s in /dev/shm; llmd needs none of it: its segments have no names", size);
    if (f->host.driver[0] && f->host.nvml.n > 1 && f->host.shm_bytes < SHM_FOR_GPUS)
        check_advise(c, "several GPUs talk through it: mount -o remount,size=8G /dev/shm, or "
                        "--shm-size=8g for a container");
}

void check_memlock(const struct facts *f, struct check *c)
{
    char size[32];

    c->name = "memlock";
    terminal_bytes(size, sizeof size, f->host.memlock_max);
    if (!f->host.has_memlock)
        check_find(c, "no limit can be read");
    else if (f->host.memlock_max == UINT64_MAX)
        check_find(c, "unlimited");
    else
        check_find(c, "%s may be locked; without GPUs nothing is", size);
    if (f->host.has_memlock && f->host.driver[0] && f->host.memlock_max < ((uint64_t)1 << 30))
        check_advise(c, "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited: copies to GPUs "
                        "want locked memory");
}

void check_container(const struct facts *f, struct check *c)
{
    char memory[32], cores[32] = "no quota of cores";

    c->name = "limits";
    terminal_bytes(memory, sizeof memory, f->host.group_memory_max);
    if (f->host.group_cores != UINT32_MAX)
        snprintf(cores, sizeof cores, "a quota of %u cores", f->host.group_cores);
    check_find(c, "control group: %s%s, %s",
               f->host.group_memory_max ? memory : "no limit of memory",
               f->host.group_memory_max ? " of memory" : "", cores);
}

/* ---- the machine ---- */

void check_numa(const struct facts *f, struct check *c)
{
    c->name = "numa";
    if (f->host.n_nodes == 0)
        check_find(c, "memory nodes are not known");
    else if (f->host.n_nodes == 1)
        check_find(c, "one memory node");
    else
        check_find(c, "%u memory nodes; tp_size=%u gives each a rank, whose weights lie beside it",
                   f->host.n_nodes, f->host.n_nodes);
}

void check_governor(const struct facts *f, struct check *c)
{
    c->name = "governor";
    if (!f->host.governor[0])
        check_find(c, "the clock of the cores is not ours to set");
    else
        check_find(c, "%s", f->host.governor);
    if (strcmp(f->host.governor, "powersave") == 0 || strcmp(f->host.governor, "ondemand") == 0)
        check_advise(c,
                     "cores wake slowly between requests: cpupower frequency-set -g performance");
}

static uint64_t uncorrected(const struct nvml_gpus *n)
{
    uint64_t errors = 0;

    for (unsigned i = 0; i < n->n; i++)
        errors += n->gpus[i].ecc_uncorrected;
    return errors;
}

static unsigned unusable(const struct nvml_gpus *n)
{
    unsigned found = 0;

    for (unsigned i = 0; i < n->n; i++)
        found += n->gpus[i].is_unusable;
    return found;
}

static bool all_persistent(const struct nvml_gpus *n)
{
    for (unsigned i = 0; i < n->n; i++)
        if (!n->gpus[i].persistent)
            return false;
    return true;
}

void check_gpu(const struct facts *f, struct check *c)
{
    const struct nvml_gpus *n = &f->host.nvml;
    char memory[32];

    c->name = "gpu";
    if (!f->host.driver[0]) {
        check_find(c, "no NVIDIA driver: the CPU computes");
        return;
    }
    if (!n->is_loaded) {
        check_find(c, "driver %s, but libnvidia-ml.so.1 does not answer", f->host.driver);
        check_advise(c, "nvidia-smi says why; in a container, start it with --gpus all");
        return;
    }
    terminal_bytes(memory, sizeof memory, n->n ? n->gpus[0].memory_bytes : 0);
    check_find(c, "driver %s, %u of %s, %s%s", f->host.driver, n->n,
               n->n ? n->gpus[0].name : "GPUs", memory, all_persistent(n) ? ", persistent" : "");
    if (unusable(n) > 0) {
        check_advise(c,
                     "%u of them are lost, or the driver asks for a reset: dmesg says why (Xid); "
                     "nvidia-smi -r when nothing uses them, else start the machine again",
                     unusable(n));
        c->fails = true;
    } else if (uncorrected(n) > 0) {
        check_advise(
            c,
            "%llu memory errors that could not be corrected: nvidia-smi -q -d ECC,ROW_REMAPPER; "
            "reset the GPU (nvidia-smi -r) or have it replaced",
            (unsigned long long)uncorrected(n));
        c->fails = true;
    } else if (!all_persistent(n))
        check_advise(c, "the driver unloads between runs: each start waits for it, and a crash may "
                        "cost weights and KV pages: nvidia-smi -pm 1");
}

/* ---- service ---- */

void check_port(const struct facts *f, struct check *c)
{
    c->name = "port";
    if (f->status && f->status->n_listen > 0)
        check_find(c, "listens at %s", f->status->listen[0]);
    else if (f->host.port == 0)
        check_find(c, "the server listens nowhere yet");
    else if (!f->host.port_is_taken)
        check_find(c, "%u is free", f->host.port);
    else {
        check_find(c, "somebody else listens at %u", f->host.port);
        check_advise(c, "ss -ltnp 'sport = :%u' shows who; or start with another --port",
                     f->host.port);
        c->fails = true;
    }
}

void check_unit(const struct facts *f, struct check *c)
{
    c->name = "unit";
    if (!f->has_systemd)
        check_find(c, "no systemd here");
    else if (!f->host.unit[0])
        check_find(c, "llmd.service is not installed");
    else
        check_find(c, "llmd.service is %s", f->host.unit);
    if (strcmp(f->host.unit, "failed") == 0) {
        check_advise(c,
                     "journalctl -u llmd -n 50 says why (%s); then systemctl reset-failed llmd && "
                     "systemctl start llmd",
                     f->host.unit_result);
        c->fails = true;
    }
}

void check_clock(const struct facts *f, struct check *c)
{
    c->name = "clock";
    if (!f->host.has_clock)
        check_find(c, "not looked at");
    else if (f->host.now_s < YEAR_2024_S) {
        check_find(c, "stands before 2024");
        check_advise(c, "timedatectl set-ntp true, or date -s: logs and certificates need it");
    } else
        check_find(c, f->host.clock_is_set ? "kept by a time service"
                                           : "runs by itself; times in logs may drift");
}
