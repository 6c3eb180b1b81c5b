/* link_rate.c - see link_rate.h. */
#include "gpu-worker/cuda/verify/link_rate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUTPUT_BYTES = 65536 };

/* ---- lines ---- */

/* Behind the end of the line; NULL: it was the last. */
static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');

    return end && end[1] != '\0' ? end + 1 : NULL;
}

bool link_rate_find(struct link_gpu *out, const char *list, const char *uuid)
{
    size_t n = strlen(uuid);

    for (const char *line = list; line; line = next_line(line))
        if (n > 0 && strncmp(line, uuid, n) == 0)
            return sscanf(line + n, ", %d, %u, %u", &out->index, &out->pcie_generation,
                          &out->pcie_lanes) == 3;
    return false;
}

/* Cell `i` of a line, cell 0 being its name. */
static const char *cell(const char *line, int i)
{
    const char *end = line + strcspn(line, "\n");

    while (i-- > 0) {
        line = memchr(line, '\t', (size_t)(end - line));
        if (!line)
            return "";
        line++;
    }
    return line + strspn(line, " ");
}

unsigned link_rate_nvlinks(const char *matrix, int from, int to)
{
    char name[24];
    unsigned n = 0;

    snprintf(name, sizeof name, "GPU%d\t", from);
    for (const char *line = matrix; line; line = next_line(line))
        if (strncmp(line, name, strlen(name)) == 0)
            return sscanf(cell(line, to + 1), "NV%u", &n) == 1 ? n : 0;
    return 0;
}

double link_rate_nvlink(const char *links)
{
    double best = 0, rate;

    for (const char *line = links; line; line = next_line(line))
        if (sscanf(line, " Link %*u: %lf GB/s", &rate) == 1 && rate > best)
            best = rate;
    return best;
}

double link_rate_pcie(unsigned generation, unsigned lanes)
{
    static const double lane[] = { 0,
                                   2.5 * 8 / 10 / 8,
                                   5.0 * 8 / 10 / 8,
                                   8.0 * 128 / 130 / 8,
                                   16.0 * 128 / 130 / 8,
                                   32.0 * 128 / 130 / 8,
                                   64.0 / 8 };

    return generation < sizeof lane / sizeof *lane ? lane[generation] * lanes : 0;
}

/* ---- asking ---- */

/* Its output; "" when there is none. */
static void ask(char out[OUTPUT_BYTES], const char *arguments)
{
    char command[200];
    size_t n = 0;
    FILE *f;

    snprintf(command, sizeof command, "nvidia-smi %s 2>/dev/null", arguments);
    f = popen(command, "re");
    if (f) {
        n = fread(out, 1, OUTPUT_BYTES - 1, f);
        pclose(f);
    }
    out[n] = '\0';
}

static bool say_why(char why[120], const char *words)
{
    snprintf(why, 120, "%s", words);
    return false;
}

static void set_nvlinks(struct link_rate *out, char text[OUTPUT_BYTES], const struct link_gpu *gpu,
                        unsigned n)
{
    char arguments[40];

    snprintf(arguments, sizeof arguments, "nvlink -s -i %d", gpu->index);
    ask(text, arguments);
    out->gb_per_s = n * link_rate_nvlink(text);
    snprintf(out->how, sizeof out->how, "%u NVLinks", n);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static void set_pcie(struct link_rate *out, const struct link_gpu *a, const struct link_gpu *b)
{
    unsigned generation = least(a->pcie_generation, b->pcie_generation);
    unsigned lanes = least(a->pcie_lanes, b->pcie_lanes);

    out->gb_per_s = link_rate_pcie(generation, lanes);
    snprintf(out->how, sizeof out->how, "PCIe %u x%u", generation, lanes);
}

bool link_rate_ask(struct link_rate *out, const char *uuid, const char *peer, char why[120])
{
    static char text[OUTPUT_BYTES];
    struct link_gpu a, b;
    unsigned n;

    ask(text, "--query-gpu=uuid,index,pcie.link.gen.max,pcie.link.width.max --format=csv,noheader");
    if (text[0] == '\0')
        return say_why(why, "nvidia-smi, which knows the link, is not on PATH or does not answer");
    if (!link_rate_find(&a, text, uuid) || !link_rate_find(&b, text, peer))
        return say_why(why, "nvidia-smi does not tell these GPUs' links");
    ask(text, "topo -m");
    if ((n = link_rate_nvlinks(text, a.index, b.index)) > 0)
        set_nvlinks(out, text, &a, n);
    else
        set_pcie(out, &a, &b);
    return out->gb_per_s > 0 || say_why(why, "nvidia-smi does not tell the link's rate");
}
