/* worker_exit.h - exit codes by which a worker tells llmd what became of its GPU.
 *
 * The supervisor reads them from waitid(); every other code, and every signal, is a plain death: the successor
 * attaches to the memory as it is.  Beside sysexits' 64-78 and the service manager's 200 and up; never reused. */
#ifndef LLMD_PROTO_WORKER_EXIT_H
#define LLMD_PROTO_WORKER_EXIT_H

enum worker_exit {
    /* A sticky error (illegal address, launch failure): the context is dead, the memory is there but may have been
     * scribbled on.  Start a successor, which verifies checksums before it adopts. */
    WORKER_EXIT_DEVICE_STICKY = 80,
    /* A contained memory error: a region of device memory is lost.  Start a successor, which verifies and drops
     * what does not match. */
    WORKER_EXIT_DEVICE_CONTAINED = 81,
    /* The device is gone (uncorrectable ECC, off the bus): its memory too.  Drop the descriptors; start again only
     * after a reset. */
    WORKER_EXIT_DEVICE_LOST = 82,
    /* A step did not end within the watchdog's limit.  As STICKY; a process that cannot be reaped within 5 s means
     * the device is to be marked down. */
    WORKER_EXIT_DEVICE_HANGS = 83,
    /* The device cannot be used as configured (no driver, unfit, no kernels for it, too little memory left): starting
     * again at once does not help. */
    WORKER_EXIT_DEVICE_UNUSABLE = 84,
};

/* What such a code says, for people; "" = it is none of these. */
static inline const char *worker_exit_words(int code)
{
    switch (code) {
    case WORKER_EXIT_DEVICE_STICKY:
        return "error of its GPU";
    case WORKER_EXIT_DEVICE_CONTAINED:
        return "a part of its GPU's memory is bad";
    case WORKER_EXIT_DEVICE_LOST:
        return "its GPU is lost";
    case WORKER_EXIT_DEVICE_HANGS:
        return "its GPU hangs";
    case WORKER_EXIT_DEVICE_UNUSABLE:
        return "its GPU cannot be used";
    default:
        return "";
    }
}

#endif
