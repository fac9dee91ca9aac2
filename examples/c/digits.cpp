// A digit read in C++: g++ -std=c++11 digits.cpp resnest_digits.so
//
//   lucid compile resnest_digits --emit so --embed -o out/
//   g++ -std=c++11 -Iout examples/c/digits.cpp out/resnest_digits.so -Wl,-rpath,$PWD/out -o digits
//   ./digits digit.raw        (1024 floats: 32 x 32 pixels, normalised)
#include "resnest_digits.hpp"

#include <algorithm>
#include <fstream>
#include <iostream>

int main(int argc, char **argv)
{
    std::vector<float> pixels(32 * 32);
    std::ifstream file(argc > 1 ? argv[1] : "digit.raw", std::ios::binary);
    file.read(reinterpret_cast<char *>(pixels.data()), pixels.size() * sizeof(float));
    try {
        resnest_digits::Model model("", 2);
        std::vector<float> scores = model.run<float>(pixels, {1, 1, 32, 32});
        std::cout << std::max_element(scores.begin(), scores.end()) - scores.begin() << "\n";
    } catch (const resnest_digits::Error &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
