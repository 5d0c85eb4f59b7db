"""Pictures that speak in the same cells: any photograph or drawing, any voice, joined by modulation band."""
