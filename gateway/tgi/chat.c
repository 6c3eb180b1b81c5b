/* chat.c - a conversation to a prompt, by TGI's rules. */
#include <string.h>

#include "gateway/openai/openai.h"
#include "gateway/tgi/tgi.h"

bool tgi_render_chat(struct request *rq, const json_t *chat, struct buf *text, struct fault *f)
{
    const json_t *messages = json_object_get(chat, "messages");
    const json_t *tools = json_object_get(chat, "tools");
    size_t n = json_array_size(messages);
    const json_t *final = n ? json_array_get(messages, n - 1) : NULL;
    const char *role = json_string_value(json_object_get(final, "role"));
    bool continues = role && strcmp(role, "assistant") == 0;
    struct openai_chat_options options = { .add_generation_prompt = !continues,
                                           .continue_final_message = continues,
                                           .tools = json_array_size(tools) ? tools : NULL };
    const char *last;

    if (!chat_templates_pick(&rq->service->chat, options.tools))
        return fault_set(f, FAULT_TEMPLATE, "", "template not found");
    return openai_render_chat(rq, messages, &options, text, &last, f);
}
