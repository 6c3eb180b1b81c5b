/* test_gpu_room.c - how much GPU memory a server plans with, on the fake driver.
 *
 * Would break in production: a second copy is started on a GPU that the first one fills, and dies at its first allocation,
 * again and again; memory that nobody will ever give back is not told of. */
#include "gpu-worker/cuda/chunks.h"
#include "gpu-worker/runtime.h"
#include "tests/cuda/child.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"
#define MIB  (1ull << 20)

static bool inspect(const char *kv_cache_bytes, Llmd__ModelPlan *plan, struct err *e)
{
    static struct model_info info;
    static struct config config;

    config_init(&config);
    return config_set(&config, "model", DEMO, "test", e) &&
           config_set(&config, "device", "cuda", "test", e) &&
           config_set(&config, "kv_cache_bytes", kv_cache_bytes, "test", e) &&
           runtime_inspect(&config, &info, plan, e);
}

/* As another server's: memory, held by descriptors. */
static void hold(struct chunk_set *set, uint64_t bytes)
{
    struct err e = { 0 };

    *set = (struct chunk_set){ .id = 1, .bytes = bytes, .chunk_bytes = bytes, .n = 1 };
    CHECK_OK(cuda_driver_open(&e), e);
    CHECK_OK(chunks_create_on(0, set, NULL, 0, &e), e);
}

static void plan_beside_another(void)
{
    struct chunk_set others;
    Llmd__ModelPlan plan;
    struct err e = { 0 };
    char gpu[GPU_NAME_BYTES];

    CHECK_OK(inspect("200000000", &plan, &e), e);
    CHECK(plan.on_device && plan.device_bytes > 190 * MIB);
    CHECK(gpu_names_get(plan.gpus, 0, gpu) && strncmp(gpu, "GPU-", 4) == 0);
    CHECK(!gpu_names_get(plan.gpus, 1, gpu) && strcmp(plan.gpu_note, "") == 0);
    hold(&others, 300 * MIB);
    CHECK(!inspect("200000000", &plan, &e));
    CHECK(e.code == ERR_CONFIG && strstr(e.msg, "MiB of GPU memory are missing"));
    CHECK(strstr(e.msg, "300 are in use by no process that NVML shows"));
    CHECK_OK(inspect("30000000", &plan, &e), e); /* a smaller one fits */
    chunk_set_fini(&others);
    CHECK_OK(inspect("200000000", &plan, &e), e);
}

static void what_others_have_is_not_planned_with(void **state)
{
    char folder[STATE_FOLDER_BYTES], settings[400];

    (void)state;
    assert_true(state_folder_make(folder));
    snprintf(settings, sizeof settings, "gpus=1,memory=500m,state=%s", folder);
    assert_int_equal(in_child(settings, NULL, plan_beside_another), 0);
    assert_true(state_folder_remove(folder));
}

static void names_are_found_by_their_place(void **state)
{
    char out[GPU_NAME_BYTES] = "as it was", list[200];

    (void)state;
    assert_true(gpu_names_get("a bc d", 0, out));
    assert_string_equal(out, "a");
    assert_true(gpu_names_get("a bc d", 1, out));
    assert_string_equal(out, "bc");
    assert_true(gpu_names_get("a bc d", 2, out));
    assert_string_equal(out, "d");
    assert_false(gpu_names_get("a bc d", 3, out));
    assert_false(gpu_names_get("", 0, out));
    assert_false(gpu_names_get("a  b", 1, out));
    memset(list, 'x', sizeof list - 1);
    list[sizeof list - 1] = '\0';
    assert_false(gpu_names_get(list, 0, out));
    assert_string_equal(out, "d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_others_have_is_not_planned_with),
        cmocka_unit_test(names_are_found_by_their_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
