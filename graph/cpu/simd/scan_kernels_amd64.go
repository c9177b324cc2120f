package simd

//go:generate go run ./gen/scan -out scan_asm_amd64.s -stubs scan_asm_amd64.go -pkg simd

var scanTable = [...]scanKernels{
	Portable: scanPortable,
	AVX2: {
		lanes: 8, statesAtOnce: scanStatesAtOnce,
		delta:      scanDeltaAVX2,
		states:     scanStatesAVX2,
		gate:       scanGateAVX2,
		statesGrad: scanStatesGradAVX2,
		gateGrad:   scanGateGradAVX2,
		deltaGrad:  scanDeltaGradAVX2,
		addLanes:   scanAddLanesAVX2,
	},
	AVX512: {
		lanes: 16, statesAtOnce: scanStatesAtOnce,
		delta:      scanDeltaAVX512,
		states:     scanStatesAVX512,
		gate:       scanGateAVX512,
		statesGrad: scanStatesGradAVX512,
		gateGrad:   scanGateGradAVX512,
		deltaGrad:  scanDeltaGradAVX512,
		addLanes:   scanAddLanesAVX512,
	},
}
