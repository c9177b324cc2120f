// Package layers holds the model: mixers (Mamba, attention, SwiGLU, gated linear
// attention, retention), and the stack of residual sublayers that they make up
// (Samba, arXiv 2406.07522). A mixer is a plain struct of its hyper-parameters, which
// a recipe's section decodes into, with one Forward that puts its operations into a
// graph.
package layers
