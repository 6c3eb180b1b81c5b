/* kvpool_fixture.c - see kvpool_fixture.h. */
#include "kvpool_fixture.h"

#include "tests/check.h"

const struct kvpool_shape pool_shape = { .n_pages = 64,
                                         .page_tokens = 16,
                                         .n_layers = 2,
                                         .n_kv_heads = 3,
                                         .head_dim = 8,
                                         .dtype = DTYPE_F16 };

struct kvpool pool_make(void)
{
    struct kvpool p;
    struct err e;

    assert_ok(kvpool_create(&p, &pool_shape, 77, &e), e);
    return p;
}
