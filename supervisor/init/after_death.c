/* after_death.c - pure arithmetic; reads no clock.
 *
 *   exit code 0, 2, 64             it ended by itself: so do we, with its code
 *   any other exit code            the same if the service never was ready, or is to stop; else again
 *   signal (the watchdog's too)    again; while stopping only as long as children have to finish
 *
 * A llmd that had been in service for a second comes back at once, as often as it is killed: the children
 * serve meanwhile, but nobody heals them.  One that dies earlier than that is in a crash loop: pauses double
 * (the first such death is free if it was ready), each longer life halves them, and a minute of service
 * ends the row.
 */
#include "supervisor/init/after_death.h"

#include "common/clock.h"

#define SHORT_SERVICE_NS (1 * NS_PER_S)
#define LONG_SERVICE_NS  (60 * NS_PER_S)

enum { PAUSE_MS = 100, STOPPING_DEATHS_MAX = 5 };

static int exit_code_of(const struct death *d)
{
    return d->by_signal ? 128 + d->status : d->status;
}

static bool is_final(const struct death_row *row, const struct death *d)
{
    if (d->by_signal)
        return row->is_stopping && !d->has_children;
    return row->is_stopping || !row->was_ever_ready || d->status == 0 || d->status == 2 ||
           d->status == 64;
}

static uint64_t next_pause_ms(struct death_row *row, const struct death *d)
{
    uint64_t twice = row->pause_ms ? 2 * row->pause_ms : PAUSE_MS;

    if (d->served_ns >= LONG_SERVICE_NS)
        row->pause_ms = row->short_lives = 0;
    if (d->served_ns >= SHORT_SERVICE_NS) {
        row->pause_ms /= 2;
        return 0;
    }
    if (row->short_lives++ == 0 && d->served_ns > 0)
        return 0;
    row->pause_ms = twice < row->pause_max_ms ? twice : row->pause_max_ms;
    return row->pause_ms;
}

struct death_verdict after_death(struct death_row *row, const struct death *d)
{
    if (is_final(row, d))
        return (struct death_verdict){ DEATH_FINAL, 0, exit_code_of(d) };
    if (row->is_stopping && ++row->stopping_deaths > STOPPING_DEATHS_MAX)
        return (struct death_verdict){ DEATH_KILL, 0, EXIT_CODE_KILLED };
    return (struct death_verdict){ DEATH_RESTART, next_pause_ms(row, d), exit_code_of(d) };
}
