// A digit read in Go, through cgo.
//
//	lucid compile resnest_digits --emit so --embed -o out/
//	CGO_CFLAGS=-I$PWD/out CGO_LDFLAGS="$PWD/out/resnest_digits.so -Wl,-rpath,$PWD/out" \
//	    go run examples/c/digits.go digit.raw        (1024 floats: 32 x 32 pixels, normalised)
package main

/*
#include <stdlib.h>
#include "resnest_digits.h"

// One image in, ten scores out. Arrays of a call hold pointers, which cgo does not let Go's own
// memory do: they are made here.
static resnest_digits_status digits_run(resnest_digits_model *model, const float *pixels,
                                        float *scores)
{
    resnest_digits_input input = {pixels, 32 * 32 * sizeof(float), NULL};
    resnest_digits_output output = {scores, 10 * sizeof(float)};
    return resnest_digits_run(model, &input, 1, &output, 1);
}
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
)

func check(status C.resnest_digits_status) error {
	if status == C.RESNEST_DIGITS_OK {
		return nil
	}
	return errors.New(C.GoString(C.resnest_digits_error(status)))
}

func read(path string) ([]float32, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(bytes) != 4*32*32 {
		return nil, fmt.Errorf("%s has %d bytes, not those of 1024 floats", path, len(bytes))
	}
	pixels := make([]float32, 32*32)
	for i := range pixels {
		pixels[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	return pixels, nil
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("give a file of 1024 floats")
	}
	pixels, err := read(os.Args[1])
	if err != nil {
		return err
	}
	var model *C.resnest_digits_model
	options := C.resnest_digits_options{threads: 2}
	if err := check(C.resnest_digits_create(&options, &model)); err != nil {
		return err
	}
	defer C.resnest_digits_destroy(model)
	scores := make([]float32, 10)
	status := C.digits_run(model, (*C.float)(&pixels[0]), (*C.float)(&scores[0]))
	if err := check(status); err != nil {
		return err
	}
	best := 0
	for i, score := range scores {
		if score > scores[best] {
			best = i
		}
	}
	fmt.Println(best)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
