/* page_list.h - pages, or slots, in the order of their last use: by number, without allocation. */
#ifndef LLMD_GPU_WORKER_PAGE_LIST_H
#define LLMD_GPU_WORKER_PAGE_LIST_H

#include <stdint.h>
#include <stdlib.h>

#include "common/mem.h"

#define PAGE_LIST_END UINT32_MAX

struct page_list {
    uint32_t *older, *newer; /* [numbers] of those in the list */
    uint32_t oldest, newest; /* PAGE_LIST_END: it is empty */
    uint32_t n;
};

static inline void page_list_init(struct page_list *l, uint32_t n_numbers)
{
    *l = (struct page_list){ .oldest = PAGE_LIST_END, .newest = PAGE_LIST_END };
    l->older = mem_zalloc(n_numbers, sizeof *l->older);
    l->newer = mem_zalloc(n_numbers, sizeof *l->newer);
}

static inline void page_list_fini(struct page_list *l)
{
    free(l->older);
    free(l->newer);
    *l = (struct page_list){ 0 };
}

/* i is in no list. */
static inline void page_list_push(struct page_list *l, uint32_t i)
{
    l->older[i] = l->newest;
    l->newer[i] = PAGE_LIST_END;
    if (l->newest != PAGE_LIST_END)
        l->newer[l->newest] = i;
    else
        l->oldest = i;
    l->newest = i;
    l->n++;
}

/* i is in this one. */
static inline void page_list_remove(struct page_list *l, uint32_t i)
{
    uint32_t older = l->older[i], newer = l->newer[i];

    if (older != PAGE_LIST_END)
        l->newer[older] = newer;
    else
        l->oldest = newer;
    if (newer != PAGE_LIST_END)
        l->older[newer] = older;
    else
        l->newest = older;
    l->n--;
}

#endif
