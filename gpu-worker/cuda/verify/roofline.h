/* roofline.h - how fast a GPU can be by its data sheet, and which part of that a kernel is to reach.
 *
 * The least time of a launch is what it has to move over the memory's bandwidth, or its operations over the tensor
 * cores' rate, whichever is more; the part is that of kernels/roofline.csv.  scripts/gpu-roofline.sh prints the same of
 * the shapes that stand there. */
#ifndef LLMD_CUDA_VERIFY_ROOFLINE_H
#define LLMD_CUDA_VERIFY_ROOFLINE_H

struct data_sheet {
    const char *name;     /* "A100-80" */
    const char *words[2]; /* of the driver's name; "" = none */
    int sm;               /* 80 = 8.0 */
    double gb_per_s, tflops;
    double prefill_target; /* part of tflops that a long prompt is to reach; 0: none */
};

/* Of a GPU that the driver calls so: all its words, whole ones.  NULL: there is none here, or it is a slice of a GPU
 * (MIG). */
const struct data_sheet *data_sheet_of(const char *gpu, int sm);

/* Microseconds. */
double roofline_least_us(const struct data_sheet *s, double bytes, double operations);

/* The part of it that the kernel is to reach at its largest shape, 0..1; 0: the kernel is not in roofline.csv. */
double roofline_part(const char *kernel);

#endif
