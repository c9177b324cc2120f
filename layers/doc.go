// Package layers holds the model: mixers (Mamba, attention, SwiGLU, gated linear
// attention, retention), and the stack of residual sublayers that they make up
// (Samba, arXiv 2406.07522). A mixer is a plain struct of its hyper-parameters, into which
// a section of a recipe is decoded, with one Forward method that adds its operations to a
// graph.
package layers
