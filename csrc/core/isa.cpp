#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lrnn {
namespace {

struct Choice {
    Isa isa;
    const char* name;
};

const std::vector<Choice>& supported() {
    static const std::vector<Choice> found = [] {
        std::vector<Choice> list{{Isa::scalar, "scalar"}};
#if defined(__x86_64__) || defined(_M_X64)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list.push_back({Isa::avx2, "avx2"});
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
            list.push_back({Isa::avx512, "avx512"});
        if (list.back().isa == Isa::avx512 && __builtin_cpu_supports("avx512vbmi") &&
            __builtin_cpu_supports("avx512vnni"))
            list.push_back({Isa::avx512vnni, "avx512vnni"});
#elif defined(__aarch64__) && defined(__linux__)
        if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) list.push_back({Isa::neon, "neon"});
#elif defined(__aarch64__) && defined(__APPLE__)
        list.push_back({Isa::neon, "neon"});  // every Apple silicon has the dot products
#endif
        return list;
    }();
    return found;
}

std::string supported_names() {
    std::string names;
    for (const Choice& c : supported()) {
        if (!names.empty()) names += ',';
        names += c.name;
    }
    return names;
}

const Choice* find(const char* name) {
    if (name == nullptr || *name == '\0') return &supported().back();
    for (const Choice& c : supported())
        if (std::string(c.name) == name) return &c;
    return nullptr;
}

std::string refusal(const char* what, const char* name) {
    return std::string(what) + ": found '" + name + "', expected one of " + supported_names();
}

std::string environment_error;  // written once, before `active` is first read

std::atomic<const Choice*>& active() {
    static std::atomic<const Choice*> choice = [] {
        const char* name = std::getenv("LRNN_ISA");
        const Choice* named = find(name);
        if (named == nullptr) environment_error = refusal("LRNN_ISA", name);
        return named != nullptr ? named : &supported().front();
    }();
    return choice;
}

}  // namespace

Isa active_isa() { return active().load(std::memory_order_relaxed)->isa; }

bool has_bf16_dot() {
#if defined(__x86_64__) || defined(_M_X64)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

}  // namespace lrnn

const char* lrnn_isa(void) { return lrnn::active().load()->name; }

const char* lrnn_isa_supported(void) {
    static const std::string names = lrnn::supported_names();
    return names.c_str();
}

const char* lrnn_isa_error(void) {
    lrnn::active();
    return lrnn::environment_error.empty() ? nullptr : lrnn::environment_error.c_str();
}

const char* lrnn_isa_select(const char* name) {
    const lrnn::Choice* named = lrnn::find(name);
    if (named == nullptr) {
        thread_local std::string message;
        message = lrnn::refusal("isa", name);
        return message.c_str();
    }
    lrnn::active().store(named);
    return nullptr;
}
