// $title in C++11: the interface of $name.h with exceptions, and memory that is given back.
#ifndef ${NAME}_HPP
#define ${NAME}_HPP

#include "$name.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace $name {

// What a status other than OK becomes.
class Error : public std::runtime_error {
public:
    explicit Error(${name}_status status)
        : std::runtime_error(${name}_error(status)), status(status) {}
    const ${name}_status status;
};

inline void check(${name}_status status)
{
    if (status != ${NAME}_OK)
        throw Error(status);
}

using Shape = std::vector<int64_t>;

// A model, which can be moved and not copied; any number of threads may call `run` at once.
class Model {
public:
    // `weights`: the path of $name.bin; empty where they are embedded. Zeros: see $name.h.
    explicit Model(const std::string &weights = "", int threads = 0, int max_calls = 0)
    {
        ${name}_options options = {weights.empty() ? nullptr : weights.c_str(), threads, max_calls,
                              nullptr};
        ${name}_model *made = nullptr;
        check(${name}_create(&options, &made));
        model_.reset(made);
    }

    // Computes the outputs of arrays that the caller has.
    void run(const std::vector<${name}_input> &inputs, const std::vector<${name}_output> &outputs)
    {
        check(${name}_run(model_.get(), inputs.data(), inputs.size(), outputs.data(), outputs.size()));
    }

    // The same for one input and one output of numbers of the types that the network has.
    template <class Output, class Input>
    std::vector<Output> run(const std::vector<Input> &input, const Shape &shape)
    {
        static_assert(${NAME}_INPUTS == 1 && ${NAME}_OUTPUTS == 1, "give all inputs and outputs");
        if (shape.size() != static_cast<std::size_t>(${name}_input_info(0)->rank))
            throw Error(${NAME}_BAD_SHAPE);
        const int64_t *shapes[] = {shape.data()};
        Shape out(${NAME}_MAX_RANK);
        check(${name}_output_shape(shapes, 0, out.data()));
        std::size_t count = 1;
        for (int axis = 0; axis < ${name}_output_info(0)->rank; axis++)
            count *= static_cast<std::size_t>(out[axis]);
        std::vector<Output> output(count);
        run({{input.data(), input.size() * sizeof(Input), shape.data()}},
            {{output.data(), output.size() * sizeof(Output)}});
        return output;
    }

    const char *level() const { return ${name}_level(model_.get()); }

private:
    struct Destroy {
        void operator()(${name}_model *model) const { ${name}_destroy(model); }
    };
    std::unique_ptr<${name}_model, Destroy> model_;
};

} // namespace $name

#endif
