/* fuzz_chat_template.c - any bytes as a template, rendered for a fixed conversation.
 *
 * Templates come from model directories, and from clients where the operator allows it.  Whatever they
 * hold, compiling and rendering must end soon, with text or with an error, and leak nothing. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"},"
    "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Gr\xc3\xbc\xc3\x9f"
    "e \xf0\x9f\xa6\x99\"}]},"
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"a\", \"function\":"
    " {\"name\": \"f\", \"arguments\": {\"x\": 1, \"y\": [2.5, null, true]}}}]},"
    "{\"role\": \"tool\", \"content\": \" ok\\n\"}], \"tools\": [{\"function\": {\"name\": "
    "\"f\"}}],"
    " \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct tm now = { .tm_year = 124, .tm_mon = 6, .tm_mday = 26 };
    static json_t *vars;
    struct err e = { 0 };
    struct buf out = { 0 };
    struct chat_template *t;

    if (!vars)
        vars = json_parse(conversation, strlen(conversation), &e);
    assert(vars);
    t = chat_template_new((const char *)bytes, n, &e);
    if (!t) {
        assert(e.code == ERR_MODEL && e.msg[0]);
        return 0;
    }
    chat_template_wants_parts(t);
    if (!chat_template_render(t, vars, &now, &out, &e))
        assert(e.code == ERR_INPUT && out.n == 0);
    buf_fini(&out);
    chat_template_free(t);
    return 0;
}
