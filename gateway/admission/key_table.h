/* key_table.h - the API keys in force: who may ask, and what each may use and has used.
 *
 * The records are in the connections segment (proto/keys_layout.h), so that the next gateway goes on with them;
 * without one they are the table's own.  The main thread loads, any thread looks up. */
#ifndef LLMD_GATEWAY_ADMISSION_KEY_TABLE_H
#define LLMD_GATEWAY_ADMISSION_KEY_TABLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/api_keys.h"
#include "proto/keys_layout.h"

#define KEY_UNKNOWN UINT32_MAX

struct key_table {
    struct key_record *records; /* [KEYS_MAX] */
    bool owns_records;
    pthread_rwlock_t lock;                 /* of names and hashes */
    _Atomic bool asks;                     /* a key is asked for */
    _Atomic uint32_t n_live;               /* keys that open */
    _Atomic uint32_t n_requests[KEYS_MAX]; /* in the house now */
};

/* records: borrowed, or NULL.  Everybody may ask until key_table_load(). */
void key_table_init(struct key_table *t, struct key_record *records);
void key_table_fini(struct key_table *t);

/* The settings api_key and api_keys_file, "" for none.  A key keeps its record as long as its name is in the
 * file.  ERR_SYS, ERR_CONFIG: the file could not be taken, and its keys stay what they were. */
bool key_table_load(struct key_table *t, const char *api_key, const char *file, struct err *e);

/* Some key of a file opens: what stands in the records is not nothing. */
bool key_table_has_file_keys(const struct key_table *t);

/* The key with this text, or KEY_UNKNOWN.  Compares with every key, whichever it is. */
uint32_t key_table_find(struct key_table *t, const char *text, size_t n);

/* Its name, for people; "" for KEY_NOBODY. */
void key_table_name(struct key_table *t, uint32_t key, char out[KEY_NAME_BYTES]);

static inline struct key_record *key_table_record(const struct key_table *t, uint32_t key)
{
    return &t->records[key];
}

static inline bool key_is_live(const struct key_record *r)
{
    return atomic_load_explicit(&r->state, memory_order_acquire) == KEY_LIVE;
}

#endif
