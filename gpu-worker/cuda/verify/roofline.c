/* roofline.c - see roofline.h. */
#include "gpu-worker/cuda/verify/roofline.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const struct data_sheet sheets[] = {
#define SHEET(name, word, another, sm, gb_per_s, tflops, part)                                     \
    { name, { word, another }, sm, gb_per_s, tflops, part },
#include "gpu-worker/cuda/verify/data_sheets.def"
#undef SHEET
};

struct roofline_row {
    const char *kernel;
    double percent;
};

/* Made of kernels/roofline.csv by roofline.cmake. */
static const struct roofline_row rows[] = {
#include "gpu-worker/cuda/verify/roofline_rows.inc"
};

/* "A10" is no word of "NVIDIA A100". */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[n]))
            return true;
    return false;
}

const struct data_sheet *data_sheet_of(const char *gpu, int sm)
{
    if (has_word(gpu, "MIG"))
        return NULL;
    for (size_t i = 0; i < sizeof sheets / sizeof sheets[0]; i++)
        if (sheets[i].sm == sm && has_word(gpu, sheets[i].words[0]) &&
            (!sheets[i].words[1][0] || has_word(gpu, sheets[i].words[1])))
            return &sheets[i];
    return NULL;
}

double roofline_least_us(const struct data_sheet *s, double bytes, double operations)
{
    double memory = bytes / (s->gb_per_s * 1e3), compute = operations / (s->tflops * 1e6);

    return memory > compute ? memory : compute;
}

/* Of several shapes the last is the largest. */
double roofline_part(const char *kernel)
{
    double percent = 0;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].kernel, kernel) == 0)
            percent = rows[i].percent;
    return percent / 100;
}
