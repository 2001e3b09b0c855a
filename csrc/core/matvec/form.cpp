#include "core/matvec/form_loops.h"

#include "core/isa.h"

namespace lrnn {

const FormLoops form_scalar{to_words, from_narrow, from_wide, read};

const FormLoops& form_loops() {
#if defined(__x86_64__) || defined(_M_X64)
    const Isa isa = float_isa(active_isa());
    if (isa == Isa::avx512) return form_avx512;
    if (isa == Isa::avx2) return form_avx2;
#endif
    return form_scalar;
}

}  // namespace lrnn
