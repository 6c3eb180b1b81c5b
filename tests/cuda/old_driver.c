/* old_driver.c - a libcuda.so.1 of long ago: it has cuInit, and little else that is asked for. */
int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);

int cuInit(unsigned flags)
{
    (void)flags;
    return 0;
}

int cuDriverGetVersion(int *version)
{
    *version = 8000;
    return 0;
}
