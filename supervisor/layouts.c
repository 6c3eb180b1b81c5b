/* layouts.c - see layouts.h. */
#include "supervisor/layouts.h"

#include <stdio.h>

#include "proto/board_layout.h"
#include "proto/chunks_layout.h"
#include "proto/connections_layout.h"
#include "proto/frame.h"
#include "proto/group_layout.h"
#include "proto/host_tier_layout.h"
#include "proto/kvpool_layout.h"
#include "proto/ledger_layout.h"
#include "proto/weights_layout.h"
#include "supervisor/state.h"

const char *layouts_line(void)
{
    static char line[180];

    snprintf(line, sizeof line,
             "layouts frame=%d state=%d board=%d connections=%d ledger=%d kvpool=%d weights=%d "
             "group=%d chunks=%d hosttier=%d",
             FRAME_VERSION, STATE_VERSION, BOARD_VERSION, CONNECTIONS_VERSION, LEDGER_VERSION,
             KVPOOL_VERSION, WEIGHTS_VERSION, GROUP_VERSION, CHUNKS_VERSION, HOST_TIER_VERSION);
    return line;
}
