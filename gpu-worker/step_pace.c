/* step_pace.c - see step_pace.h. */
#include "gpu-worker/step_pace.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define MEAN_WEIGHT     0.125 /* of a new measurement */
#define ROWS_MAX        1e9
#define DRAFT_PRICE_MIN 0.1 /* sampling and bookkeeping are not for nothing */

/* A step is interrupted at times and never hurried: a shorter one tells more than a longer one, and of a much
 * longer one only so much counts. */
#define SHORTER_WEIGHT 0.75
#define LONGER_WEIGHT  0.25

#define NEWS        0.25 /* a step alone took so much more or less than it should */
#define TOO_LONG    1.25 /* of the target */
#define MUCH_SLOWER 0.75 /* than the steps before: perhaps an accident */

void step_pace_init(struct step_pace *p, uint32_t n_streams_max)
{
    *p = (struct step_pace){ .n_streams_max = n_streams_max, .look_after = STEP_PACE_LOOK_SOON };
    p->alone_ns = mem_zalloc(n_streams_max + 1, sizeof *p->alone_ns);
    p->mean_ns = mem_zalloc(n_streams_max + 1, sizeof *p->mean_ns);
}

void step_pace_fini(struct step_pace *p)
{
    free(p->alone_ns);
    free(p->mean_ns);
    *p = (struct step_pace){ 0 };
}

/* What n streams alone take; of a number never seen the least that its neighbours allow: fewer take no longer, and
 * more at most in proportion.  0 when nothing was seen. */
static double infer(const struct step_pace *p, const double *seen_ns, uint32_t n)
{
    uint32_t fewer = n, more = n + 1;
    double least;

    while (fewer > 0 && seen_ns[fewer] == 0)
        fewer--;
    while (more < p->n_streams_max && seen_ns[more] == 0)
        more++;
    least = fewer > 0 ? seen_ns[fewer] : 0;
    if (fewer == n || more > p->n_streams_max)
        return least;
    return fmax(least, seen_ns[more] * n / more);
}

static double alone(const struct step_pace *p, uint32_t n)
{
    return infer(p, p->alone_ns, n);
}

static void learn_mean(double *kept, double took)
{
    *kept = *kept == 0 ? took : *kept + MEAN_WEIGHT * (took - *kept);
}

/* Returns whether it is news. */
static bool learn_alone(double *kept, double took)
{
    double was = *kept;

    if (was == 0)
        *kept = took;
    else if (took < was)
        *kept += SHORTER_WEIGHT * (took - was);
    else
        *kept += LONGER_WEIGHT * fmin(took - was, was);
    return fabs(took - was) > NEWS * was;
}

static double middle(double a, double b, double c)
{
    return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

/* The middle one of three, or the newest when that is a little less. */
static double speed(const struct step_pace *p)
{
    double of_last = middle(p->speeds[0], p->speeds[1], p->speeds[2]);

    static_assert(STEP_PACE_SPEEDS == 3, "the middle one of three");
    return fmax(fmin(p->speeds[0], of_last), MUCH_SLOWER * of_last);
}

static void learn_speed(struct step_pace *p, double new)
{
    bool is_first = p->speeds[0] == 0;

    memmove(p->speeds + 1, p->speeds, (STEP_PACE_SPEEDS - 1) * sizeof *p->speeds);
    p->speeds[0] = new;
    if (is_first)
        p->speeds[1] = p->speeds[2] = new;
}

static bool streams_have_changed(const struct step_pace *p)
{
    uint64_t was = p->looked_back, is = p->looks_back, change = was > is ? was - is : is - was;

    return change > was / 8;
}

static bool is_look_due(const struct step_pace *p)
{
    uint32_t after = p->look_after;

    if (p->n_too_long > 1 && after > STEP_PACE_LOOK_LATE)
        after = STEP_PACE_LOOK_LATE;
    if (streams_have_changed(p))
        after = STEP_PACE_LOOK_SOON;
    return p->n_since_look >= after;
}

static void learn_look(struct step_pace *p, bool is_news)
{
    uint32_t twice = 2 * p->look_after;

    p->n_since_look = p->n_too_long = 0;
    p->looked_back = p->looks_back;
    p->look_after = twice < STEP_PACE_LOOK_STEPS ? twice : STEP_PACE_LOOK_STEPS;
    if (is_news)
        p->look_after = STEP_PACE_LOOK_SOON;
}

static double stretch(const struct step_pace_load *load, uint64_t percent)
{
    double ratio = (double)load->n_prompts / load->n_streams;

    return ((double)percent / 100 - 1) * fmax(ratio * ratio, 1);
}

uint32_t step_pace_rows(struct step_pace *p, const struct step_pace_load *load, uint64_t percent)
{
    uint32_t n_streams = load->n_streams;
    double base, rows;

    assert(n_streams <= p->n_streams_max);
    if (n_streams == 0)
        return UINT32_MAX;
    base = alone(p, n_streams);
    p->n_given = 0;
    p->looks_back = load->n_back;
    if (base == 0 || is_look_due(p))
        return 0;
    p->target_ns = base * (1 + stretch(load, percent));
    rows = (p->speeds[0] > 0 ? speed(p) : n_streams / base) * p->target_ns - n_streams;
    p->n_given = (uint32_t)fmin(fmax(rows, 1), ROWS_MAX);
    return p->n_given;
}

/* The end of a prompt, less than what was allowed, can show that this is too much, not that it is little. */
void step_pace_learn(struct step_pace *p, uint32_t n_streams, uint32_t n_rows, uint64_t took_ns)
{
    double took = took_ns > 0 ? (double)took_ns : 1;

    assert(n_streams <= p->n_streams_max);
    if (n_streams == 0)
        return;
    if (n_rows == 0) {
        learn_mean(&p->mean_ns[n_streams], took);
        learn_look(p, learn_alone(&p->alone_ns[n_streams], took));
        return;
    }
    p->n_since_look++;
    p->n_too_long = took > TOO_LONG * p->target_ns ? p->n_too_long + 1 : 0;
    if (n_rows >= p->n_given || took >= p->target_ns)
        learn_speed(p, (n_streams + n_rows) / took);
}

void step_pace_learn_drafts(struct step_pace *p, uint32_t n_streams, uint32_t n_drafts,
                            uint64_t took_ns)
{
    double base = infer(p, p->mean_ns, n_streams);

    if (base > 0) /* less than nothing, too: else a machine with noise would make them seem dear */
        p->draft_ns += MEAN_WEIGHT * (((double)took_ns - base) / n_drafts - p->draft_ns);
}

double step_pace_draft_price(const struct step_pace *p, uint32_t n_streams)
{
    double base = infer(p, p->mean_ns, n_streams), price = 0;

    if (base > 0)
        price = p->draft_ns * n_streams / base;
    return price < DRAFT_PRICE_MIN ? DRAFT_PRICE_MIN : price > 1 ? 1 : price;
}
