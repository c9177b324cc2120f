// Package layers contains the model: mixers (Mamba, attention, SwiGLU, gated linear attention,
// retention, Mega), and the stack of residual sublayers that they make up (Samba, arXiv
// 2406.07522). A mixer is a plain struct of its hyperparameters, into which a section of a recipe
// is decoded, with a Forward method that adds its operations to a graph.
package layers
