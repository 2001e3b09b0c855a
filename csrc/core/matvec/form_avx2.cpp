#include "core/matvec/form_loops.h"

namespace lrnn {

const FormLoops form_avx2{to_words, from_narrow, from_wide, read};

}  // namespace lrnn
