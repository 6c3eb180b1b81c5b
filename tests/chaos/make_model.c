/* make_model.c - write a Llama of about a billion random parameters, as HuggingFace directories are.
 *
 * For measuring only: a restart that loaded the weights again, or computed the KV of its sequences again,
 * would take seconds with it.  Few wide layers and few KV heads give the shortest decode step for the
 * bytes.
 *
 *   make_model DIR-OF-THE-DEMO-MODEL DIR      tokenizer and vocabulary come from the first */
#include <stdio.h>

#include "tests/chaos/model_files.h"

static const struct model_shape billion = {
    .vocab = 2048,
    .hidden = 4096,
    .inner = 13312,
    .layers = 5,
    .heads = 32,
    .kv_heads = 2,
    .head_dim = 128,
    .positions = 512,
};

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_model DIR-OF-THE-DEMO-MODEL DIR\n");
        return 64;
    }
    if (!model_files_write(&billion, argv[1], argv[2]))
        return 1;
    printf("%lu parameters in %s\n", (unsigned long)model_files_parameters(&billion), argv[2]);
    return 0;
}
