/* model_rope.c - rope fields of config.json, and the frequencies that follow from them. */
#include "gpu-worker/load/model_rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- scalings ---- */

static bool read_factor(const struct json_reader *r, struct model_config *c)
{
    return json_reader_number(r, "factor", 1, 1e6, &c->rope_factor);
}

/* A scaling as it is read: its object, config.json around it, and what the family says. */
struct scaling {
    const struct json_reader *r, *whole;
    const struct model_rope_defaults *defaults;
};

/* In the object or beside it, where Phi and GGUF's reader put it.  absent: 0 when it must be there. */
static bool read_original(const struct scaling *s, double absent, struct model_config *c)
{
    static const char *const field = "original_max_position_embeddings";
    const struct json_reader *r = json_reader_field(s->r, field) ? s->r : s->whole;

    if (absent > 0)
        return json_reader_number_or(r, field, 1, MODEL_POSITIONS_MAX, absent,
                                     &c->rope_original_positions);
    return json_reader_number(r, field, 1, MODEL_POSITIONS_MAX, &c->rope_original_positions);
}

static bool read_llama3(const struct scaling *s, struct model_config *c)
{
    const struct json_reader *r = s->r;

    if (!read_factor(r, c) ||
        !json_reader_number(r, "low_freq_factor", 1e-3, 1e6, &c->rope_low_freq_factor) ||
        !json_reader_number(r, "high_freq_factor", 1e-3, 1e6, &c->rope_high_freq_factor) ||
        !read_original(s, 0, c))
        return false;
    if (c->rope_high_freq_factor <= c->rope_low_freq_factor)
        return json_reader_fail(r, "high_freq_factor", "above low_freq_factor");
    return true;
}

/* These change the amplitude in ways of other families. */
static bool refuse_mscale(const struct json_reader *r)
{
    static const char *const names[] = { "mscale", "mscale_all_dim", "short_mscale",
                                         "long_mscale" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_reader_field(r, names[i]))
            return json_reader_fail(r, names[i], "absent in this build");
    return true;
}

/* Section 3.4 of the paper: queries and keys grow by 0.1 ln(factor) + 1, unless the file knows better. */
static bool read_yarn(const struct scaling *s, struct model_config *c)
{
    const struct json_reader *r = s->r;
    bool whole;
    double positions;

    if (!read_factor(r, c) || !read_original(s, c->positions_max, c) || !refuse_mscale(r) ||
        !json_reader_number_or(r, "attention_factor", 1e-3, 1e3, 0.1 * log(c->rope_factor) + 1,
                               &c->rope_amplitude) ||
        !json_reader_number_or(r, "beta_fast", 1e-3, 1e6, 32, &c->rope_beta_fast) ||
        !json_reader_number_or(r, "beta_slow", 1e-3, 1e6, 1, &c->rope_beta_slow) ||
        !json_reader_bool_or(r, "truncate", true, &whole))
        return false;
    if (c->rope_beta_fast <= c->rope_beta_slow)
        return json_reader_fail(r, "beta_fast", "above beta_slow");
    c->rope_yarn_exact = !whole;
    positions = c->rope_original_positions * c->rope_factor;
    if (positions > c->positions_max)
        c->positions_max =
            positions < MODEL_POSITIONS_MAX ? (uint32_t)positions : MODEL_POSITIONS_MAX;
    return true;
}

static bool read_divisors(const struct json_reader *r, const char *field, uint32_t n, float *out)
{
    const json_t *list = json_reader_field(r, field);
    char wanted[64];

    snprintf(wanted, sizeof wanted, "%u numbers in 1e-6..1e6", n);
    if (!json_is_array(list) || json_array_size(list) != n)
        return json_reader_fail(r, field, wanted);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        double x = json_number_value(v);
        if (!json_is_number(v) || !(x >= 1e-6 && x <= 1e6))
            return json_reader_fail(r, field, wanted);
        out[i] = (float)x;
    }
    return true;
}

/* The amplitude follows from how much longer the context became: sqrt(1 + ln(scale) / ln(original)). */
static bool read_longrope(const struct scaling *s, struct model_config *c)
{
    double scale, amplitude = 1;

    if (!read_original(s, s->defaults->original_positions, c) || !refuse_mscale(s->r) ||
        !read_divisors(s->r, "short_factor", c->rope_dim / 2, c->rope_short) ||
        !read_divisors(s->r, "long_factor", c->rope_dim / 2, c->rope_long))
        return false;
    scale = c->positions_max / c->rope_original_positions;
    if (scale > 1 && c->rope_original_positions > 1)
        amplitude = sqrt(1 + log(scale) / log(c->rope_original_positions));
    return json_reader_number_or(s->r, "attention_factor", 1e-3, 1e3, amplitude,
                                 &c->rope_amplitude);
}

/* ---- the fields ---- */

struct scaling_name {
    const char *name;
    enum rope_scaling kind;
};

/* "su" is what longrope was called at first. */
static const struct scaling_name scaling_names[] = {
    { "default", ROPE_PLAIN }, { "linear", ROPE_LINEAR },    { "llama3", ROPE_LLAMA3 },
    { "yarn", ROPE_YARN },     { "longrope", ROPE_FACTORS }, { "su", ROPE_FACTORS },
};

static bool find_kind(const struct json_reader *r, enum rope_scaling *kind)
{
    const char *key = json_reader_field(r, "rope_type") ? "rope_type" : "type";
    const char *type = json_string_value(json_reader_field(r, key));

    if (!type)
        return json_reader_fail(r, "rope_type", "a word");
    for (size_t i = 0; i < sizeof scaling_names / sizeof *scaling_names; i++)
        if (strcmp(type, scaling_names[i].name) == 0) {
            *kind = scaling_names[i].kind;
            if (*kind == ROPE_YARN && json_reader_field(r, "long_factor"))
                *kind = ROPE_FACTORS; /* an early name again */
            return true;
        }
    return json_reader_fail(r, key, "default, linear, llama3, yarn or longrope in this build");
}

static bool read_scaling(const struct scaling *s, struct model_config *c)
{
    if (!find_kind(s->r, &c->rope_scaling))
        return false;
    switch (c->rope_scaling) {
    case ROPE_LINEAR:
        return read_factor(s->r, c);
    case ROPE_LLAMA3:
        return read_llama3(s, c);
    case ROPE_YARN:
        return read_yarn(s, c);
    case ROPE_FACTORS:
        return read_longrope(s, c);
    default:
        return true;
    }
}

/* Whole dimensions, as the reference code rounds them; a little more, for what a division lost. */
static bool read_partial(const struct json_reader *r, bool known, struct model_config *c)
{
    double part;

    if (!json_reader_number_or(r, "partial_rotary_factor", 0, 1, 1, &part))
        return false;
    if (part == 1)
        return true;
    if (!known)
        return json_reader_fail(r, "partial_rotary_factor", "1");
    c->rope_dim = (uint32_t)(c->head_dim * part + 1e-6);
    if (c->rope_dim == 0 || c->rope_dim % 2 != 0)
        return json_reader_fail(r, "partial_rotary_factor",
                                "a part of the head with an even number of dimensions");
    return true;
}

/* The scaling is the object rope_scaling, or rope_parameters of newer files. */
bool model_rope_read(const struct json_reader *r, const struct model_rope_defaults *d,
                     struct model_config *c)
{
    const json_t *scaling = json_reader_field(r, "rope_scaling");
    const json_t *whole = json_reader_field(r, "rope_parameters");
    struct json_reader in = { .object = whole, .e = r->e };
    char file[96];

    c->rope_dim = c->head_dim;
    c->rope_amplitude = 1;
    if (!json_reader_number_or(r, "rope_theta", 1, 1e15, d->theta, &c->rope_theta) ||
        !read_partial(r, d->partial, c))
        return false;
    if (scaling && !json_is_object(scaling))
        return json_reader_fail(r, "rope_scaling", "an object");
    if (whole && !json_is_object(whole))
        return json_reader_fail(r, "rope_parameters", "an object");
    snprintf(file, sizeof file, "%.60s: %s", r->file, whole ? "rope_parameters" : "rope_scaling");
    in.file = file;
    if (whole &&
        (!json_reader_number_or(&in, "rope_theta", 1, 1e15, c->rope_theta, &c->rope_theta) ||
         !read_partial(&in, d->partial, c)))
        return false;
    in.object = whole ? whole : scaling;
    return !in.object || read_scaling(&(struct scaling){ &in, r, d }, c);
}

/* ---- frequencies ---- */

/* Low frequencies are divided by the factor, high ones kept, those between blended by how many turns they
 * make within the original context. */
static double llama3_freq(const struct model_config *c, double freq)
{
    double turns = c->rope_original_positions * freq / (2 * M_PI);
    double blend =
        (turns - c->rope_low_freq_factor) / (c->rope_high_freq_factor - c->rope_low_freq_factor);

    if (turns < c->rope_low_freq_factor)
        return freq / c->rope_factor;
    if (turns > c->rope_high_freq_factor)
        return freq;
    return (1 - blend) * freq / c->rope_factor + blend * freq;
}

/* The pair, as a number with a fraction, that makes so many turns within the original context. */
static double yarn_pair(const struct model_config *c, double turns)
{
    return c->rope_dim * log(c->rope_original_positions / (turns * 2 * M_PI)) /
           (2 * log(c->rope_theta));
}

/* The same idea, blended by the pair's index, with ends that the reference code rounds to whole pairs. */
static double yarn_freq(const struct model_config *c, uint32_t pair, double freq)
{
    double low = yarn_pair(c, c->rope_beta_fast), high = yarn_pair(c, c->rope_beta_slow), ramp;

    if (!c->rope_yarn_exact) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, c->rope_dim - 1);
    ramp = (pair - low) / (high > low ? high - low : 0.001);
    ramp = fmin(fmax(ramp, 0), 1);
    return ramp * freq / c->rope_factor + (1 - ramp) * freq;
}

void model_config_rope_freq(const struct model_config *c, uint32_t max_model_len, double *freq)
{
    bool is_long = max_model_len > c->rope_original_positions;

    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        freq[i] = pow(c->rope_theta, -2.0 * i / c->rope_dim);
        switch (c->rope_scaling) {
        case ROPE_LINEAR:
            freq[i] /= c->rope_factor;
            break;
        case ROPE_LLAMA3:
            freq[i] = llama3_freq(c, freq[i]);
            break;
        case ROPE_YARN:
            freq[i] = yarn_freq(c, i, freq[i]);
            break;
        case ROPE_FACTORS:
            freq[i] /= (is_long ? c->rope_long : c->rope_short)[i];
            break;
        case ROPE_PLAIN:
            break;
        }
    }
}
