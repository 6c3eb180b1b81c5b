/* config_file.c - the file source of settings: one YAML mapping of setting: value.
 *
 *   model: /srv/models/llama
 *   port: 8080            # comments, quotes and anchors of YAML as usual
 *   kv_cache_bytes: 4G
 *
 * Run by llmd at start-up and on reload.  This is the one door to libyaml, and it reads events, not a
 * tree: a settings file is flat, so every event that is not a scalar in its place is an error with the
 * line it stands on.  Nothing is set twice: a repeated setting is an error, because the one that loses
 * would be the one somebody is editing. */
#include "common/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/file.h"

enum { FILE_BYTES_MAX = 1 << 20 };

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the newest; owned */
    const char *path;
    struct config *config;
    bool seen[N_CONFIG];
};

static unsigned line_of(const yaml_event_t *event)
{
    return (unsigned)event->start_mark.line + 1;
}

static bool complain(const struct reader *r, const char *what, struct err *e)
{
    return err_set(e, ERR_CONFIG, 0, "%s:%u: %s", r->path, line_of(&r->event), what);
}

static bool next(struct reader *r, struct err *e)
{
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event))
        return true;
    memset(&r->event, 0, sizeof r->event);
    return err_set(e, ERR_CONFIG, 0, "%s:%u: not YAML: %s", r->path,
                   (unsigned)r->parser.problem_mark.line + 1,
                   r->parser.problem ? r->parser.problem : "unreadable");
}

/* The scalar of the newest event as text; NULL when it is none or holds a NUL. */
static const char *scalar(const struct reader *r)
{
    const char *text = (const char *)r->event.data.scalar.value;

    if (r->event.type != YAML_SCALAR_EVENT || strlen(text) != r->event.data.scalar.length)
        return NULL;
    return text;
}

/* "file PATH:LINE"; a long path loses its beginning, never the line. */
static void put_source(char *out, size_t n, const char *path, unsigned line)
{
    char where[16];
    size_t room, len = strlen(path);

    snprintf(where, sizeof where, ":%u", line);
    room = n - sizeof "file ..." - strlen(where);
    snprintf(out, n, "file %s%s%s", len > room ? "..." : "", len > room ? path + len - room : path,
             where);
}

/* The newest event is a key: take it and its value. */
static bool read_setting(struct reader *r, struct err *e)
{
    char name[64], source[sizeof r->config->source[0]];
    const char *text = scalar(r);
    int index;

    if (!text)
        return complain(r, "the name of a setting is expected here", e);
    index = config_find(text);
    if (index < 0)
        return err_set(e, ERR_CONFIG, 0, "%s:%u: there is no setting '%.64s'", r->path,
                       line_of(&r->event), text);
    snprintf(name, sizeof name, "%s", config_name((enum config_id)index));
    if (r->seen[index])
        return err_set(e, ERR_CONFIG, 0, "%s:%u: setting '%s' is given twice", r->path,
                       line_of(&r->event), name);
    r->seen[index] = true;
    if (!next(r, e))
        return false;
    text = scalar(r);
    if (!text)
        return err_set(e, ERR_CONFIG, 0, "%s:%u: setting '%s' takes one plain value", r->path,
                       line_of(&r->event), name);
    put_source(source, sizeof source, r->path, line_of(&r->event));
    if (!config_set(r->config, name, text, source, e))
        return err_wrap(e, "%s:%u", r->path, line_of(&r->event));
    return true;
}

static bool read_mapping(struct reader *r, struct err *e)
{
    if (!next(r, e))
        return false;
    while (r->event.type != YAML_MAPPING_END_EVENT)
        if (!read_setting(r, e) || !next(r, e))
            return false;
    return next(r, e);
}

/* STREAM-START, then nothing or one document: one mapping, or empty. */
static bool read_stream(struct reader *r, struct err *e)
{
    if (!next(r, e) || !next(r, e))
        return false;
    if (r->event.type == YAML_STREAM_END_EVENT)
        return true;
    if (!next(r, e))
        return false;
    if (r->event.type == YAML_MAPPING_START_EVENT) {
        if (!read_mapping(r, e))
            return false;
    } else if (scalar(r) && !scalar(r)[0]) {
        if (!next(r, e)) /* "---" and nothing else */
            return false;
    } else {
        return complain(r, "expected lines of 'setting: value'", e);
    }
    if (!next(r, e)) /* the newest was DOCUMENT-END */
        return false;
    return r->event.type == YAML_STREAM_END_EVENT || complain(r, "a second document begins", e);
}

bool config_read_file(struct config *c, const char *path, struct err *e)
{
    struct reader r = { .path = path, .config = c };
    char *bytes;
    size_t n;
    bool ok;

    if (!file_read(path, FILE_BYTES_MAX, &bytes, &n, e))
        return err_wrap(e, "configuration file");
    if (!yaml_parser_initialize(&r.parser)) {
        free(bytes);
        return err_set(e, ERR_CONFIG, 0, "configuration file '%s': no memory to parse it", path);
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes, n);
    ok = read_stream(&r, e);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    free(bytes);
    return ok;
}
