#pragma once

// What libraries must be asked for so that results have the same bits. For the whole process:
// called before its first op, by programs; libraries that use farskip call them where they start.
namespace farskip {

// Of a CPU: a row of a matrix product has the same bits whatever rows stand beside it, which pieces
// and unequal ranks rest on, and a function has the same bits from its first call on. Intel's
// library otherwise sums in another order where there are few rows (up to 15 with AVX-512) or at
// the end of many; and threads whose first calls of a function meet may run different code of it.
// An MKL_CBWR that is set stays. Called by one thread, before others compute.
void prepare_cpu_libraries();

// Whether kernels of a GPU keep to one order of summation, so that gradients have the same bits in
// every run; slower. Those that know no such order throw.
void use_deterministic_kernels(bool deterministic);

}  // namespace farskip
