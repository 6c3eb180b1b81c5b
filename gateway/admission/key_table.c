/* key_table.c - load keys into records, find them by their hash. */
#include "gateway/admission/key_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

static_assert((int)API_KEY_NAME_BYTES == (int)KEY_NAME_BYTES, "names are copied");
static_assert((int)API_KEY_HASHES_MAX == (int)KEY_HASHES_MAX, "hashes are copied");
static_assert((int)SECRET_HASH_BYTES == (int)KEY_HASH_BYTES, "hashes are copied");
static_assert((int)API_KEYS_MAX <= (int)KEYS_MAX - (int)KEY_FIRST, "a place for each");

void key_table_init(struct key_table *t, struct key_record *records)
{
    *t = (struct key_table){ .records = records, .owns_records = !records };
    if (!records)
        t->records = mem_zalloc(KEYS_MAX, sizeof *t->records);
    pthread_rwlock_init(&t->lock, NULL);
    atomic_store(&t->records[KEY_NOBODY].weight, 1);
}

void key_table_fini(struct key_table *t)
{
    if (!t->records)
        return;
    pthread_rwlock_destroy(&t->lock);
    if (t->owns_records)
        free(t->records);
    t->records = NULL;
}

/* ---- loading ---- */

static enum key_state state_of(const struct key_record *r)
{
    return (enum key_state)atomic_load_explicit(&r->state, memory_order_acquire);
}

static void set_state(struct key_record *r, enum key_state state)
{
    atomic_store_explicit(&r->state, (uint32_t)state, memory_order_release);
}

/* A death in here leaves a key that opens nothing; the next gateway reads the file again. */
static void fill(struct key_record *r, const struct api_key *key)
{
    set_state(r, KEY_RETIRED);
    memcpy(r->name, key->name, sizeof r->name);
    memcpy(r->hash, key->hash, sizeof r->hash);
    r->n_hashes = key->n_hashes;
    atomic_store(&r->requests_per_minute, key->requests_per_minute);
    atomic_store(&r->tokens_per_minute, key->tokens_per_minute);
    atomic_store(&r->concurrency, key->concurrency);
    atomic_store(&r->weight, key->weight);
    atomic_store(&r->priority, key->priority);
    set_state(r, KEY_LIVE);
}

static struct key_record *find_name(struct key_table *t, const char *name)
{
    for (uint32_t k = KEY_FIRST; k < KEYS_MAX; k++)
        if (state_of(&t->records[k]) != KEY_FREE && strcmp(t->records[k].name, name) == 0)
            return &t->records[k];
    return NULL;
}

/* A record for a new name: a free one, or one whose key is gone with all its requests. */
static struct key_record *take_place(struct key_table *t)
{
    struct key_record *r = NULL;

    for (uint32_t k = KEY_FIRST; k < KEYS_MAX && !r; k++)
        if (state_of(&t->records[k]) == KEY_FREE)
            r = &t->records[k];
    for (uint32_t k = KEY_FIRST; k < KEYS_MAX && !r; k++)
        if (state_of(&t->records[k]) == KEY_RETIRED && atomic_load(&t->n_requests[k]) == 0)
            r = &t->records[k];
    if (r)
        memset(r, 0, sizeof *r);
    return r;
}

static bool is_listed(const struct api_keys *keys, const char *name)
{
    for (size_t i = 0; i < keys->n; i++)
        if (strcmp(keys->list[i].name, name) == 0)
            return true;
    return false;
}

static void take_file(struct key_table *t, const struct api_keys *keys)
{
    for (uint32_t k = KEY_FIRST; k < KEYS_MAX; k++)
        if (state_of(&t->records[k]) == KEY_LIVE && !is_listed(keys, t->records[k].name))
            set_state(&t->records[k], KEY_RETIRED);
    for (size_t i = 0; i < keys->n; i++) {
        struct key_record *r = find_name(t, keys->list[i].name);
        if (!r)
            r = take_place(t);
        if (r)
            fill(r, &keys->list[i]);
        else
            log_warning("keys: no place for '%s' until requests of removed keys have ended",
                        keys->list[i].name);
    }
}

/* The keys of the setting, with white space between them: all are the one named "default". */
static bool read_setting(const char *api_key, struct api_key *key, struct err *e)
{
    static const char space[] = " \t\r\n";

    *key = (struct api_key){ .name = "default", .weight = 1 };
    for (const char *at = api_key + strspn(api_key, space); *at; at += strspn(at, space)) {
        size_t n = strcspn(at, space);
        if (key->n_hashes == KEY_HASHES_MAX)
            return err_set(e, ERR_CONFIG, 0,
                           "api_key has more than %d keys: give them a file, api_keys_file",
                           KEY_HASHES_MAX);
        secret_hash(at, n, key->hash[key->n_hashes++]);
        at += n;
    }
    return true;
}

static void take_setting(struct key_table *t, const struct api_key *key)
{
    if (key->n_hashes > 0)
        fill(&t->records[KEY_SETTING], key);
    else
        set_state(&t->records[KEY_SETTING], KEY_RETIRED);
}

static uint32_t count_live(const struct key_table *t)
{
    uint32_t n = 0;

    for (uint32_t k = KEY_SETTING; k < KEYS_MAX; k++)
        n += key_is_live(&t->records[k]);
    return n;
}

bool key_table_load(struct key_table *t, const char *api_key, const char *file, struct err *e)
{
    struct api_keys keys = { 0 };
    struct api_key setting;
    bool ok = read_setting(api_key, &setting, e) && (!*file || api_keys_read(&keys, file, e));

    pthread_rwlock_wrlock(&t->lock);
    take_setting(t, &setting);
    if (ok)
        take_file(t, &keys);
    atomic_store(&t->n_live, count_live(t));
    atomic_store(&t->asks, *api_key || *file);
    pthread_rwlock_unlock(&t->lock);
    api_keys_fini(&keys);
    return ok;
}

bool key_table_has_file_keys(const struct key_table *t)
{
    for (uint32_t k = KEY_FIRST; k < KEYS_MAX; k++)
        if (key_is_live(&t->records[k]))
            return true;
    return false;
}

/* ---- looking up ---- */

static bool opens(const struct key_record *r, const uint8_t hash[KEY_HASH_BYTES])
{
    bool found = false;

    for (uint32_t i = 0; i < r->n_hashes && i < KEY_HASHES_MAX; i++)
        found |= secret_hash_is(r->hash[i], hash);
    return found;
}

uint32_t key_table_find(struct key_table *t, const char *text, size_t n)
{
    uint8_t hash[KEY_HASH_BYTES];
    uint32_t found = KEY_UNKNOWN;

    secret_hash(text, n, hash);
    pthread_rwlock_rdlock(&t->lock);
    for (uint32_t k = KEY_SETTING; k < KEYS_MAX; k++)
        if (key_is_live(&t->records[k]) && opens(&t->records[k], hash))
            found = k;
    pthread_rwlock_unlock(&t->lock);
    return found;
}

void key_table_name(struct key_table *t, uint32_t key, char out[KEY_NAME_BYTES])
{
    pthread_rwlock_rdlock(&t->lock);
    memcpy(out, t->records[key].name, KEY_NAME_BYTES);
    pthread_rwlock_unlock(&t->lock);
    out[KEY_NAME_BYTES - 1] = '\0';
}
