/* fuzz_tool_calls.c - any text as a model's, cut anywhere, through the readers of thoughts and calls.
 *
 * The first byte chooses the formats, the second how the text is cut; the rest is the text.  However it is
 * cut, the parts are the same, and where no call and no thought was found the content is the text. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "gateway/answer/chat_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const tools[] = { "none", "hermes", "llama3_json", "mistral" };
static const char *const thoughts[] = { "none", "qwen3", "deepseek_r1", "mistral" };

static struct chat_rules choose(uint8_t byte)
{
    return (struct chat_rules){
        .tools = tool_format_find(tools[byte & 3], NULL),
        .thoughts = reasoning_find(thoughts[byte >> 2 & 3], NULL),
        .is_thinking = byte & 16,
    };
}

static void describe(const struct text_parts *parts, struct buf *out)
{
    text_parts_join(parts, PART_REASONING, 0, out);
    buf_add_char(out, '|');
    text_parts_join(parts, PART_CONTENT, 0, out);
    for (size_t i = 0; i < parts->n; i++) {
        const struct text_part *p = &parts->list[i];
        if (p->kind != PART_CALL)
            continue;
        buf_add_char(out, '|');
        buf_add(out, p->s, p->n);
        buf_add_char(out, '(');
        text_parts_join(parts, PART_ARGUMENTS, p->call, out);
    }
}

/* Pieces of 1 to `most` bytes, by a generator of its own. */
static void take_cut(const struct chat_rules *rules, const char *text, size_t n, uint8_t most,
                     struct text_parts *out)
{
    struct chat_text t;
    uint32_t random = most;

    chat_text_init(&t, rules);
    for (size_t at = 0; at < n; at += 1 + (random >> 16) % (most + 1u)) {
        random = random * 1664525u + 1013904223u;
        chat_text_take(&t, text, at, false, out);
    }
    chat_text_take(&t, text, n, true, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena arena = { 0 };
    struct text_parts whole = { .arena = &arena }, cut = { .arena = &arena };
    struct buf want = { 0 }, got = { 0 };
    const char *text = (const char *)data + 2;
    struct chat_rules rules;
    struct chat_text t;

    if (n < 2)
        return 0;
    rules = choose(data[0]);
    chat_text_init(&t, &rules);
    chat_text_take(&t, text, n - 2, true, &whole);
    take_cut(&rules, text, n - 2, data[1], &cut);
    describe(&whole, &want);
    describe(&cut, &got);
    assert(want.n == got.n && memcmp(want.data, got.data, want.n) == 0);

    if (!rules.thoughts && text_parts_calls(&whole) == 0)
        assert(want.n == n - 1 && memcmp(want.data + 1, text, n - 2) == 0);
    buf_fini(&want);
    buf_fini(&got);
    arena_fini(&arena);
    return 0;
}
