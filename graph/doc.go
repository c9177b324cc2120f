// Package graph turns a model into a fixed list of kernel calls.
//
// Layers describe a model with a [Builder], which puts fused operations (each described by a
// [Spec]) into a gorgonia expression graph; gorgonia.Grad adds the backward pass. [Builder.Compile]
// turns it into a [Plan]: the order of the ops, and the place of each tensor in memory. A [Device]
// (graph/cpu, graph/cuda) loads a plan and runs it.
//
// This package is the only one that imports gorgonia.
//
// Shapes are written with these letters everywhere in the project:
//
//	B  rows of a batch                 V  vocabulary
//	T  tokens of a row                 D  width of the residual stream, or of a head
//	H  query heads                     K  key/value heads
//	C  channels of a Mamba mixer       N  states of a channel
//	F  hidden width of an MLP          R  rank of Mamba's time-step projection
//	J  taps of a convolution           P  inputs that a convolution remembers
//	S  saved states of a scan
//
// A tensor is row-major. Its last dimension is contiguous; its rows may be
// strided, because a tensor can be some columns of a wider one.
package graph
